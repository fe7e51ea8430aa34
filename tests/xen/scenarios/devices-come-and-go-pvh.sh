# shellcheck shell=bash disable=SC2154,SC2016
# SPDX-License-Identifier: GPL-2.0-or-later
# Two vTPMs in a PVH guest: its driver reloaded, the guest rebooted and crashed. Each device goes at once and leaves nothing; PCRs go with the boot only.
# limit: 900 s

# shellcheck source=tests/xen/dom0/devices.sh
. /share/harness/dom0/devices.sh

devices_begin pvh
devices_driver
reboots_by_xl
crashes
devices_end
