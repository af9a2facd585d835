#!/usr/bin/env bash
# Runs the code domain's tests and attack corpus on an aarch64 machine that qemu emulates, with a kernel and an
# interpreter of Debian's, as an ordinary user.
#
#     sudo benchmarks/aarch64.sh [SUITE]          bookworm (Linux 6.1, Python 3.11) or trixie (6.12, 3.13)
#
# Needs the attack corpus, which is not in the repository, Debian's debootstrap, qemu-system-arm and cpio, 6 GB of memory
# and 2 GB of disk; takes about half an hour. An emulated CPU is twenty times slower, so programs of the corpus get 20 s
# in place of 2 s, and tests that count seconds may fail.
set -euo pipefail
suite=${1:-bookworm}
tree=$(cd "$(dirname "$0")/.." && pwd)
data=$tree/../shared/data
if [ ! -f "$data/sandbox_attacks.jsonl" ]; then
    echo "the attack corpus is not beside this checkout: $data/sandbox_attacks.jsonl" >&2
    exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# Packages are unpacked, never configured: nothing of theirs has to run.
debootstrap --foreign --arch=arm64 --variant=minbase \
    --include=python3,busybox,libseccomp2,linux-image-cloud-arm64 "$suite" "$root" > "$work/log"
for package in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$root"
done
mv "$root"/boot/vmlinuz-* "$work/kernel"
rm -rf "$root"/{proc,boot,debootstrap,var/cache,usr/share/doc,usr/share/man,usr/share/locale} "$root"/{,usr/}lib/modules
python=$(basename "$root"/usr/bin/python3.*)
python3 -m pip install --quiet --disable-pip-version-check --target "$root/site" --platform manylinux_2_28_aarch64 \
    --platform manylinux2014_aarch64 --only-binary=:all: --python-version "${python#python}" \
    pydantic pyyaml typer rich stevedore jinja2 filelock numpy pytest hypothesis landlockpy pyseccomp
mkdir -p "$root/src/soarctl" "$root/src/shared/data"
tar --create --directory "$tree" soarctl domains rewards pyproject.toml tests | tar --extract --directory "$root/src/soarctl"
cp -r "$data"/{code,sandbox_attacks.jsonl} "$root/src/shared/data"

cat > "$root/init" <<'SCRIPT'
#!/bin/busybox sh
# The memory file system of a start cannot be left by pivot_root, as the strongest tier does. So everything moves.
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
busybox mkdir -p /proc /dev /sys /new
busybox mount -t tmpfs -o size=90%,mode=755 new /new
busybox cp -a /bin /etc /lib /sbin /site /src /usr /tests.sh /new
busybox mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/root
busybox chmod 1777 /new/tmp
exec busybox switch_root /new /bin/busybox sh /tests.sh
SCRIPT
cat > "$root/tests.sh" <<'SCRIPT'
export PATH=/usr/bin:/bin:/usr/sbin:/sbin PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=/site:/src/soarctl:/src/soarctl/domains/code
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox ip link set lo up
busybox mkdir -p /dev/shm
busybox mount -t tmpfs shm /dev/shm
echo root:x:0:0:root:/root:/bin/sh > /etc/passwd
echo user:x:1000:1000::/tmp:/bin/sh >> /etc/passwd
busybox chmod -R a+rX /src /site
echo "$(busybox uname -sr) $(busybox uname -m), $(python3 -V)"
cd /src/soarctl
user="setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=-all env HOME=/tmp"
for tier in namespace landlock seccomp; do
    $user python3 domains/code/tests/attack_corpus.py ../shared/data/sandbox_attacks.jsonl --tier $tier --seconds 20
done
for subject in forgeries jail oracles syscalls tiers wire; do
    set -- "$@" domains/code/tests/test_$subject.py
done
$user python3 -m pytest -q --color=no --tb=line -p no:cacheprovider -m 'not slow' "$@"
busybox poweroff -f
SCRIPT
chmod 755 "$root/init"
(cd "$root" && find . -print0 | cpio --quiet --null --create --format newc) > "$work/start"
qemu-system-aarch64 -M virt -cpu cortex-a72 -accel tcg,thread=multi -smp 2 -m 4G -nographic -no-reboot \
    -kernel "$work/kernel" -initrd "$work/start" < /dev/null \
    -append "console=ttyAMA0 quiet rdinit=/init lsm=landlock,lockdown,yama"
