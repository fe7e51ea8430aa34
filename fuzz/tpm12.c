/* SPDX-License-Identifier: GPL-2.0-or-later */
#define FUZZ_TPM 12
#include "fuzz/tpm.h"
