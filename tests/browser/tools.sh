#!/usr/bin/env bash
# Puts what the browser tests need from npm into a folder: an accessibility checker and the Nu HTML checker, both pinned
# by version and by hash. `tools.sh FOLDER`; does nothing where they lie already. No install script of a package is run.
set -euo pipefail

into=${1:?usage: tools.sh FOLDER}
fits() {
  (cd "$into" && sha256sum --status --check -) <<'EOF'
29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c  node_modules/axe-core/axe.min.js
22f15dd39a33bed929d2a5c0cddf5946849a647eca9272bf4d5d00bc7e7a4d47  node_modules/vnu-jar/build/dist/vnu.jar
EOF
}

mkdir -p "$into"
fits 2>/dev/null && exit 0
command -v npm >/dev/null || { echo "tools.sh: npm not found. Install Node.js (Debian: apt-get install npm)." >&2; exit 2; }
npm install --prefix "$into" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error \
  axe-core@4.14.1 vnu-jar@26.9.27
fits || { echo "tools.sh: $into holds other files than the tested ones. Delete it and try again." >&2; exit 2; }
