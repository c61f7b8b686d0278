#!/bin/sh
# A Chromium for `make test-browser`: the one that is here, or Debian's package. `.ci/run` calls this.
set -eu
here() { command -v chromium || command -v chromium-browser || command -v google-chrome; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

here >/dev/null && exit
why="The tests in a browser need Chromium, and it couldn't be installed here"
command -v apt-get >/dev/null || fail "$why (there is no apt-get): install Chromium, then run this again."
[ "$(id -u)" = 0 ] || fail "$why (only root can): install the package chromium, then run this again."
export DEBIAN_FRONTEND=noninteractive
apt-get -q update && apt-get -q install -y --no-install-recommends chromium ||
    fail "$why (apt-get says why, above): install the package chromium, then run this again."
here >/dev/null || fail "$why (the package chromium brought no program of that name): install Chromium, then run this again."
