#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every file says its licence in its head, but for those that can have no comment
# (.reuse/dep5 speaks for them); and the whole is as the REUSE specification wants it.
set -euo pipefail
cd "$(dirname "$0")/../.."
without=$(git grep -L 'SPDX-License-Identifier' -- . ':!COPYING' ':!LICENSES' ':!.reuse' \
    ':!tests/unit/golden' ':!tests/xen/guest/files/etc' ':!fuzz/corpus' ':!docs/bench/*.txt' ':!*.svg' ':!*.png' \
    ':!*.json' ':!debian/changelog' ':!debian/copyright' ':!debian/*.files' \
    ':!debian/*.symbols' ':!debian/po' ':!debian/source' ':!debian/*.templates' || true)
if [ -n "$without" ]; then
    printf 'no SPDX-License-Identifier in these files:\n%s\n' "$without"
    exit 1
fi
reuse lint | tail -n 14
exit "${PIPESTATUS[0]}"
