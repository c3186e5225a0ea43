#!/bin/sh
# Installs what Strata and its tests run on this machine, where it is missing:
#
#	install.sh [postgresql] [redis] [gcc] [make]
#
# Uses the system's package manager as root, or through sudo where that asks no password; else it says in one line what
# to install. What it installs is not started by the system. Quick and silent where there is nothing to do.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

have_postgresql() {
	have initdb && have postgres && return
	for dir in /usr/lib/postgresql/*/bin /usr/libexec/postgresql* /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin \
		/usr/local/opt/postgresql*/bin /Applications/Postgres.app/Contents/Versions/*/bin /usr/local/pgsql/bin; do
		if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then return; fi
	done
	return 1
}

have_redis() { have redis-server || [ -x /usr/sbin/redis-server ] || [ -x /opt/homebrew/bin/redis-server ]; }

missing() {
	for service in "$@"; do
		case $service in
		postgresql) have_postgresql || echo postgresql ;;
		redis) have_redis || echo redis ;;
		gcc | make) have "$service" || echo "$service" ;;
		*) echo "unknown: $service" >&2 && exit 2 ;;
		esac
	done
}

# packages MANAGER SERVICE...: the names under which that manager has them.
packages() {
	manager=$1
	shift
	for service in "$@"; do
		case $manager:$service in
		apt-get:gcc) echo gcc libc6-dev ;;
		dnf:gcc) echo gcc glibc-devel ;;
		apk:gcc) echo gcc musl-dev ;;
		*:gcc | *:make) echo "$service" ;;
		apt-get:postgresql) echo postgresql ;;
		apt-get:redis) echo redis-server ;;
		dnf:postgresql) echo postgresql-server ;;
		dnf:redis) echo redis ;;
		apk:postgresql) echo postgresql ;;
		apk:redis) echo redis ;;
		brew:postgresql) echo postgresql@17 ;;
		brew:redis) echo redis ;;
		esac
	done
}

find_manager() {
	for manager in apt-get dnf apk brew; do
		if have "$manager"; then echo "$manager" && return; fi
	done
}

# as_root COMMAND...: runs it as root; only called where may_install has said yes.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
	case $1 in
	brew) [ "$(id -u)" != 0 ] ;; # Homebrew refuses root
	*) [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; } ;;
	esac
}

# Debian starts what it installs, and creates a PostgreSQL cluster. Two files, there only while we install, say no.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/strata.conf

forbid_autostart() {
	trap 'exit 130' INT TERM
	if [ ! -e $policy ]; then
		as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
		trap 'as_root rm -f $policy $no_cluster' EXIT
	else
		trap 'as_root rm -f $no_cluster' EXIT
	fi
	as_root sh -c "mkdir -p ${no_cluster%/*} && echo 'create_main_cluster = false' >$no_cluster"
}

apt_install() {
	apt="as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300"
	forbid_autostart
	# The lists may be absent or stale; what is known and still there needs no update.
	$apt install -y --no-install-recommends "$@" || { $apt update && $apt install -y --no-install-recommends "$@"; }
	if [ -d /run/systemd/system ]; then
		for unit in postgresql redis-server; do
			case " $* " in *" $unit "*) as_root systemctl disable --quiet "$unit" || true ;; esac
		done
	fi
}

install_packages() {
	manager=$1
	shift
	case $manager in
	apt-get) apt_install "$@" ;;
	dnf) as_root dnf install -y -q "$@" ;;
	apk) as_root apk --wait 300 add --no-cache "$@" ;;
	brew) HOMEBREW_NO_AUTO_UPDATE=1 brew install "$@" ;;
	esac
}

main() {
	services=$(missing "$@")
	[ -n "$services" ] || exit 0
	services=$(echo "$services" | tr '\n' ' ')
	manager=$(find_manager)
	if [ -z "$manager" ]; then
		echo "missing: ${services% }; install with this system's package manager" >&2
		exit 1
	fi
	# shellcheck disable=SC2086 # words
	names=$(packages "$manager" $services | tr '\n' ' ')
	command="$manager install"
	case $manager in
	apk) command="sudo apk add" ;;
	apt-get | dnf) command="sudo $command" ;;
	esac
	if ! may_install "$manager"; then
		echo "missing: ${services% }; install with: $command ${names% }" >&2
		exit 1
	fi
	echo "installing ${names% } with $manager" >&2
	# shellcheck disable=SC2086 # words
	if ! install_packages "$manager" $names >&2; then
		echo "missing: ${services% }; this failed: $command ${names% }" >&2
		exit 1
	fi
}

main "$@"
