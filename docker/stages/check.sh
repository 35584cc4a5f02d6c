#!/bin/sh
# Last step of an image: checks that its programs find their libraries, and writes the SBOM (CycloneDX) of its packages
# beside those of the executables. It stays in the image: run it again in an image made from this one, after the last
# package was installed.
set -eu

sbom=/usr/local/share/sagemaker-tfs/sbom/packages.cdx.json
version() { "$@" --version 2>/dev/null | sed -n '1s/^[^0-9]*//p'; }

fail() {
  echo "error: $*" >&2
  exit 1
}

model_server=$(command -v tensorflow_model_server) || fail "tensorflow_model_server is not on PATH"
python=$(command -v sagemaker-tfs-python || true)
for program in sagemaker-tfs "$model_server" $python; do
  # Scripts and static programs have no libraries; ldd reports that with its own exit code.
  missing=$(ldd "$(command -v "$program")" 2>&1 | grep -E 'not found' || true)
  [ -z "$missing" ] || fail "$program does not run on this base image:
$missing"
done
[ -n "$(version sagemaker-tfs)" ] || fail "sagemaker-tfs does not run on this base image"
if [ -n "$python" ]; then
  linked=$(ldd "$python" | sed -n 's/^[[:space:]]*libpython\([0-9.]*\)\.so.*/\1/p')
  has=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$linked" = "$has" ] ||
    fail "sagemaker-tfs-python was built with Python $linked, and python3 is $has here: build it on this base image"
fi

# Names and versions of Debian packages contain no characters that need escaping in JSON, and only three that do in URLs.
distribution=$(. /etc/os-release && echo "$ID")
# shellcheck disable=SC2016  # dpkg-query's own variables
packages=$(dpkg-query --show --showformat '${db:Status-Status} ${Package} ${Version} ${Architecture}\n' |
  sed -n 's/^installed //p' | LC_ALL=C sort |
  while read -r name number architecture; do
    purl=pkg:deb/$distribution/$name@$number
    purl=$(echo "$purl" | sed 's/+/%2B/g; s/~/%7E/g; s/\([0-9]\):/\1%3A/g')
    printf ',\n    {"type": "library", "name": "%s", "version": "%s", "purl": "%s?arch=%s"}' \
      "$name" "$number" "$purl" "$architecture"
  done)
# Packages that pip has installed. Names on PyPI have one form.
if [ -n "$python" ]; then
  packages=$packages$(python3 -c '
import importlib.metadata, re, sysconfig
found = {(re.sub("[-_.]+", "-", one.metadata["Name"]).lower(), one.version)
         for one in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])}
for name, version in sorted(found):
    purl = f"pkg:pypi/{name}@{version}"
    print(f""",\n    {{"type": "library", "name": "{name}", "version": "{version}", "purl": "{purl}"}}""", end="")
')
fi
sum=$(sha256sum "$model_server")
mkdir -p "${sbom%/*}"
cat >"$sbom" <<END
{
  "bomFormat": "CycloneDX",
  "specVersion": "1.4",
  "version": 1,
  "metadata": {
    "component": {"type": "container", "name": "sagemaker-tfs", "version": "$(version sagemaker-tfs)"}
  },
  "components": [
    {"type": "application", "name": "tensorflow_model_server", "version": "${TFS_VERSION:-unknown}",
      "hashes": [{"alg": "SHA-256", "content": "${sum%% *}"}]}$packages
  ]
}
END
