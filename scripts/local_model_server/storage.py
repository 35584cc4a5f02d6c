"""Which versions of a model are on disk, and which of them its version policy asks for.

A version is a child of the base path whose name is a number. Loading is left to servables.
"""

import os
import re

from local_model_server import log
from local_model_server.status import invalid_argument

_VERSION = re.compile(r"-?\d+")


def versions_to_serve(config):
    """[(version, path)] in ascending order for a ModelConfig; empty (and a warning) if there is none."""
    if not os.path.exists(config.base_path):
        raise invalid_argument(
            f"Could not find base path {config.base_path} for servable {config.name} "
            f"with error NOT_FOUND: {config.base_path} not found"
        )
    paths = {}
    for child in sorted(os.listdir(config.base_path)):
        if not _VERSION.fullmatch(child):
            continue
        version = int(child)
        if version in paths:
            log.warning(
                "storage",
                f"Duplicate version directories detected. Version {version} will be "
                f"loaded from {child}, {os.path.basename(paths[version])} will be ignored.",
            )
        paths[version] = os.path.join(config.base_path, child)

    chosen = _choose(config, sorted(paths))
    if not chosen:
        log.warning(
            "storage",
            f"No versions of servable {config.name} found under base path "
            f"{config.base_path}. Did you forget to name your leaf directory as a number "
            "(eg. '/1/')?",
        )
    return [(version, paths[version]) for version in chosen]


def _choose(config, found):
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return found
    if kind == "specific":
        wanted = set(policy.specific.versions)
        for version in sorted(wanted.difference(found)):
            log.warning(
                "storage",
                f"Version {version} of servable {config.name}, which was requested to "
                "be served as a 'specific' version in the servable's version policy, was not "
                "found in the file system",
            )
        return [version for version in found if version in wanted]
    return found[-max(policy.latest.num_versions, 1) :]  # latest, which is the default too
