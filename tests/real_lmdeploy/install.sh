#!/usr/bin/env bash
# install.sh DEST VERSION...: real lmdeploy for a machine without a GPU, each version in a folder of its own.
#
# DEST/VERSION/bin/lmdeploy is lmdeploy's own command line; the layer beside this script stands in for the device alone.
# All versions share DEST/env, an environment with torch's CPU build and what lmdeploy needs. What is there is kept. What pip's
# index does not have for this Python is said and left out: the tests that want it are skipped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dest=$(mkdir -p "$1" && cd "$1" && pwd); shift
python=$dest/env/bin/python

# install WHAT ARGUMENTS...: fails, and says so, if the index does not have it; any other failure ends the script.
install() {
  local what=$1 said; shift
  said=$("$python" -m pip install -q --disable-pip-version-check "$@" 2>&1) && return
  grep -q "No matching distribution" <<<"$said" || { echo "$said" >&2; exit 1; }
  echo "SKIPPED: pip's index has no $what for $("$python" -V): $(grep -m 1 "No matching distribution" <<<"$said")"
  return 1
}

if [ ! -e "$dest/env/.installed" ]; then
  "${PYTHON:-python3}" -m venv "$dest/env"
  # The last ones ask for CUDA packages that are not needed here.
  install "packages that lmdeploy needs" --prefer-binary "${TORCH:-torch==2.13.0}" "transformers>=4.56,<5" accelerate aiohttp \
    einops fastapi fire mmengine-lite msgpack openai openai_harmony partial_json_parser pillow prometheus_client protobuf psutil \
    pybase64 pyzmq rich sentencepiece shortuuid tiktoken uvicorn || exit 0
  install "packages that lmdeploy needs" --no-deps --only-binary :all: apache-tvm-ffi xgrammar "peft<=0.14.0" || exit 0
  touch "$dest/env/.installed"
fi
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in "$@"; do
  site=$dest/$version/lib/python$minor/site-packages
  if [ ! -e "$dest/$version/.installed" ]; then
    install "lmdeploy $version" --no-deps --target "$site" "lmdeploy==$version" || continue
    find "$site" -name '*.so' -path '*turbomind*' -delete # 300 MB that want CUDA
    touch "$dest/$version/.installed"
  fi
  mkdir -p "$dest/$version/bin"
  {
    echo "#!$python"
    echo "import sys"
    echo "sys.path[:0] = ['$here/layer', '$site']"
    cat "$here/layer/command_line.py"
  } >"$dest/$version/bin/lmdeploy"
  chmod +x "$dest/$version/bin/lmdeploy"
done
