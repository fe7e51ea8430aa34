#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Every shell script of the tree, found by its first line.
set -euo pipefail
cd "$(dirname "$0")/../.."
files=$(git grep -lIE '^#!/(usr/)?bin/(env )?(ba)?sh' -- . ':!build-aux')
# shellcheck disable=SC2086 # our own names, without spaces
shellcheck -x -e SC1091 $files
