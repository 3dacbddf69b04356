"""What a virtual Pi's system consists of: packages, and files that packages' own scripts would have made.

No arm64 code runs while the image is made, so users, login rules and units are written here. The image's
name is a hash of all this: whatever changes here makes another image.
"""

from __future__ import annotations

USER, USER_ID = "pi", 1000
HOST_NAME = "pisim"
MACHINE_ID = "70692d73696d00000000000000000001"  # no first boot: that would take its time
GUEST_ADDRESS, GATEWAY = "10.0.2.15/24", "10.0.2.2"  # QEMU's user network
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}

_PACKAGES = """
    base-files base-passwd dash bash coreutils grep sed mawk util-linux mount login passwd tar gzip findutils
    hostname diffutils debianutils libc-bin ncurses-base ncurses-bin procps kmod e2fsprogs busybox-static
    netbase iproute2 openssh-server openssh-sftp-server libpam-modules libpam-runtime sudo
    systemd systemd-sysv dbus
    python3-minimal python3 libstdc++6 linux-image-arm64
"""
PACKAGES = tuple(_PACKAGES.split())

# Removed once packages are unpacked (dpkg's own path-exclude would filter each archive in Python: 22 s).
REMOVED = (
    "usr/share/man",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/bug",
    "usr/share/lintian",
    "usr/lib/linux-image-*",
    "boot/System.map-*",
)

# Kernel modules that stay, with what they depend on: the disk and network, and what tests of faults need.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "ext4", "virtio_rng")
OTHER_MODULES = ("sch_netem", "dm_flakey", "overlay", "loop", "zram", "autofs4", "unix")

_PASSWD = (
    "messagebus:x:101:101::/nonexistent:/usr/sbin/nologin",
    "sshd:x:102:65534::/run/sshd:/usr/sbin/nologin",
    f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash",
)
_GROUPS = ("systemd-journal:x:100:", "messagebus:x:101:", f"{USER}:x:{USER_ID}:")


def passwd(master: str) -> str:
    """/etc/passwd: Debian's own list and our users."""
    return "\n".join((master.strip(), *_PASSWD, ""))


def group(master: str) -> str:
    """/etc/group: Debian's own list and our groups."""
    return "\n".join((master.strip(), *_GROUPS, ""))


# Without PAM and without starting itself anew for each call, a login takes a third of its instructions.
_SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
Subsystem sftp /usr/lib/openssh/sftp-server
"""

_NETWORK_UNIT = f"""\
[Unit]
Description=the virtual network card
DefaultDependencies=no
After=sysinit.target
Before=network.target ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/ip link set lo up
ExecStart=/bin/ip link set eth0 up
ExecStart=/bin/ip addr replace {GUEST_ADDRESS} dev eth0
ExecStart=/bin/ip route replace default via {GATEWAY}

[Install]
WantedBy=multi-user.target
"""

_SSH_START = """\
[Service]
ExecStart=
ExecStart=/usr/sbin/sshd -D -r
"""

# Each file's text by its path.
FILES = {
    "/etc/hostname": f"{HOST_NAME}\n",
    "/etc/hosts": f"127.0.0.1 localhost {HOST_NAME}\n",
    "/etc/fstab": "",
    "/etc/resolv.conf": "",
    "/etc/machine-id": f"{MACHINE_ID}\n",
    "/etc/ssh/sshd_config": _SSHD_CONFIG,
    "/etc/pam.d/common-auth": "auth required pam_unix.so\n",
    "/etc/pam.d/common-account": "account required pam_unix.so\n",
    "/etc/pam.d/common-password": "password required pam_unix.so\n",
    "/etc/pam.d/common-session": "session required pam_unix.so\n",
    "/etc/pam.d/common-session-noninteractive": "session required pam_unix.so\n",
    "/etc/sudoers.d/010_pi-nopasswd": f"{USER} ALL=(ALL) NOPASSWD: ALL\n",
    "/etc/sysctl.d/60-perf.conf": "kernel.perf_event_paranoid = 2\n",
    "/etc/shadow": "root:*:19000:0:99999:7:::\n" + f"{USER}:*:19000:0:99999:7:::\n",
    "/etc/systemd/system/network-card.service": _NETWORK_UNIT,
    "/etc/systemd/system/ssh.service.d/start.conf": _SSH_START,
}
MODES = {"/etc/shadow": 0o640, "/etc/sudoers.d/010_pi-nopasswd": 0o440}

_WANTS = "/etc/systemd/system/multi-user.target.wants"
# What a system under emulation does without: each would lengthen its start. Without udev, eth0 is eth0.
_OFF = """
    getty.target serial-getty@.service dev-hugepages.mount dpkg-db-backup.timer e2scrub_all.timer
    e2scrub_reap.service fstrim.timer systemd-firstboot.service systemd-udevd.service
    systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
    kmod-static-nodes.service modprobe@.service sys-kernel-debug.mount sys-kernel-tracing.mount
    systemd-machine-id-commit.service systemd-sysusers.service systemd-network-generator.service
    systemd-pstore.service systemd-hwdb-update.service ldconfig.service systemd-update-done.service
    systemd-journal-catalog-update.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
    systemd-modules-load.service systemd-logind.service
    systemd-ask-password-wall.path systemd-ask-password-console.path
"""
LINKS = {
    "/usr/bin/awk": "mawk",
    "/etc/localtime": "/usr/share/zoneinfo/UTC",
    "/etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    f"{_WANTS}/ssh.service": "/lib/systemd/system/ssh.service",
    f"{_WANTS}/network-card.service": "/etc/systemd/system/network-card.service",
    **{f"/etc/systemd/system/{unit}": "/dev/null" for unit in _OFF.split()},
}
DIRECTORIES = ("proc", "sys", "dev", "run", "tmp", "root", "mnt", "var/log/journal", "var/tmp", "home")

# The first program of all, in the initial RAM disk: load the drivers, mount the disk, go on from there.
INITRD_INIT = """\
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in {modules}; do $B insmod /lib/modules/$m; done
i=0; while [ ! -e /dev/vda ] && [ $i -lt 200 ]; do $B sleep 0.05; i=$((i+1)); done
$B mount -t ext4 -o rw /dev/vda /mnt || exec $B sh
$B umount /sys /proc; $B mount -o move /dev /mnt/dev
exec $B switch_root /mnt /sbin/init
"""
