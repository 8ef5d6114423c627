#!/usr/bin/env bash
# install.sh DEST VERSION...: real lmdeploy for a machine without a GPU, each version in a folder of its own.
#
# DEST/VERSION/bin/lmdeploy is lmdeploy's own command line; the layer beside this script stands in for the device alone.
# All versions share DEST/env, an environment with torch's CPU build and what lmdeploy needs. What is there is kept.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dest=$(mkdir -p "$1" && cd "$1" && pwd); shift
pip() { "$dest/env/bin/python" -m pip "$@" -q --disable-pip-version-check; }

if [ ! -e "$dest/env/.installed" ]; then
  "${PYTHON:-python3}" -m venv "$dest/env"
  pip install "${TORCH:-torch==2.13.0}" "transformers>=4.56,<5" accelerate aiohttp einops fastapi fire mmengine-lite msgpack \
    openai openai_harmony partial_json_parser pillow prometheus_client protobuf psutil pybase64 pyzmq rich sentencepiece \
    shortuuid tiktoken uvicorn
  # These ask for CUDA packages that are not needed here.
  pip install --no-deps apache-tvm-ffi xgrammar "peft<=0.14.0"
  touch "$dest/env/.installed"
fi
minor=$("$dest/env/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
for version in "$@"; do
  site=$dest/$version/lib/python$minor/site-packages
  if [ ! -e "$dest/$version/.installed" ]; then
    if ! said=$(pip install --no-deps --target "$site" "lmdeploy==$version" 2>&1); then
      grep -q "No matching distribution" <<<"$said" || { echo "$said" >&2; exit 1; }
      echo "lmdeploy $version is not to be had from pip's index: its tests are skipped"
      continue
    fi
    find "$site" -name '*.so' -path '*turbomind*' -delete # 300 MB that want CUDA
    touch "$dest/$version/.installed"
  fi
  mkdir -p "$dest/$version/bin"
  {
    echo "#!$dest/env/bin/python"
    echo "import sys"
    echo "sys.path[:0] = ['$here/layer', '$site']"
    cat "$here/layer/command_line.py"
  } >"$dest/$version/bin/lmdeploy"
  chmod +x "$dest/$version/bin/lmdeploy"
done
