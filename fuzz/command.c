/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Framing of TPM commands (backend/command.h): a request and a response as they come, every
 * error response there is.
 */
#include <string.h>

#include "backend/command.h"
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xlv_bytes in = xlv_bytes_reader(data, size);
    size_t request_length, response_length;
    const uint8_t *request = piece(&in, &request_length);
    const uint8_t *response = rest(&in, &response_length);
    uint8_t error[XLV_TPM_HEADER_SIZE];

    (void)xlv_command_code(request, request_length);
    (void)xlv_response_code(response, response_length);
    (void)xlv_command_was_shutdown(request, request_length, response, response_length);
    for (unsigned fault = 0; fault < XLV_FAULTS; fault++)
        for (unsigned v = 0; v < 2; v++) {
            enum xlv_tpm_version version = v ? XLV_TPM_2_0 : XLV_TPM_1_2;
            size_t n = xlv_command_error(version, request, request_length,
                                         (enum xlv_command_fault)fault, error);

            MUST(n == sizeof(error) && xlv_response_code(error, n) != 0);
            MUST(!memcmp(error + 2, "\0\0\0\x0a", 4));
        }
    return 0;
}
