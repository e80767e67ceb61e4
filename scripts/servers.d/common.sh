# Sourced by the scripts: the cache folder, package helpers, the jars of Kafka.
# env: GODWIT_SERVERS_CACHE (default $XDG_CACHE_HOME/godwit-servers): downloads; safe to delete.
# shellcheck shell=bash
KIT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${GODWIT_SERVERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/godwit-servers}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
have() { command -v "$1" >/dev/null; }

# Installs missing Debian packages. A policy-rc.d keeps their services from starting.
apt_install() {
  local missing=() policy=/usr/sbin/policy-rc.d package
  for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  have apt-get || die "missing: ${missing[*]} (names of Debian packages); install them and try again"
  say "installing ${missing[*]}"
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | root tee $policy >/dev/null
    root chmod +x $policy
    trap "root rm -f $policy" EXIT
  fi
  root apt-get -qq update
  root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" >/dev/null
}

# Downloads PACKAGE from another SUITE of the DISTRIBUTION (Debian or Ubuntu) and prints its path. Uses separate package lists from
# the system's mirror; the system's apt sources stay unchanged.
deb_from() { # DISTRIBUTION SUITE COMPONENT PACKAGE
  local distribution=$1 suite=$2 component=$3 package=$4 dir=$CACHE/deb/$2 keyring mirror options
  compgen -G "$dir/${package}_*.deb" && return
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  options=(-o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$dir/lists"
           -o Dir::Cache="$dir/cache" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
           -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false)
  if [ ! -s "$dir/sources.list" ]; then
    root apt-get -qq update >&2
    mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' "Origin: $distribution" |
      awk '$2 !~ /-/ { print $1; exit }')
    [ -n "$mirror" ] || die "no mirror of $distribution among apt's sources; install $package by hand"
    keyring=$(printf '%s\n' "/usr/share/keyrings/${distribution,,}"-archive-keyring.* | head -1)
    echo "deb [signed-by=$keyring] $mirror $suite $component" > "$dir/sources.list"
    apt-get "${options[@]}" -qq update >&2
  fi
  (cd "$dir" && apt-get "${options[@]}" -qq download "$package" >&2)
  compgen -G "$dir/${package}_*.deb" || die "no $package in $distribution $suite"
}

# Kafka needs Java 17 or newer, which is not the default of every distribution.
java_package() {
  root apt-get -qq update >&2
  if [ -n "$(apt-cache search --names-only '^openjdk-17-jre-headless$')" ]; then echo openjdk-17-jre-headless; else echo default-jre-headless; fi
}

kafka_version() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$KIT/pom.xml"; }

# Prints the folder of the broker's jars; downloads them from Maven Central once per version.
kafka_jars() {
  local dir
  dir=$CACHE/kafka-$(kafka_version)
  if [ ! -e "$dir/complete" ]; then
    have mvn || apt_install maven "$(java_package)"
    say "fetching Apache Kafka $(kafka_version)"
    mkdir -p "$dir"
    mvn -B -f "$KIT/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$dir/libs" > "$dir/maven.log" 2>&1 ||
      { tail -20 "$dir/maven.log" >&2; die "no jars of Kafka"; }
    touch "$dir/complete"
  fi
  echo "$dir/libs"
}

# Prints the path of consul: the installed one, or the one from the last Debian or Ubuntu release with a package.
consul_program() {
  local program=$CACHE/consul/usr/bin/consul
  command -v consul && return
  [ -x "$program" ] || dpkg-deb -x "$(consul_deb)" "$CACHE/consul"
  echo "$program"
}
consul_deb() {
  if grep -q '^ID=ubuntu' /etc/os-release; then deb_from Ubuntu jammy universe consul; else deb_from Debian bullseye main consul; fi
}
