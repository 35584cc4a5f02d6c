"""The models being served: loading all of them at start, and finding one for a request.

Loading is all or nothing: either every version of every configured model is AVAILABLE when `load`
returns, or it raises. That is what TFS's readiness means, too: its ports open only after that.
"""

import time
from dataclasses import dataclass

from local_model_server import log, storage
from local_model_server.saved_model import SavedModel, session_config
from local_model_server.status import ServingError, invalid_argument, not_found


@dataclass(frozen=True)
class Servable:
    name: str
    version: int
    model: SavedModel


class Servables:
    def __init__(self):
        self._models = {}  # name -> {version: Servable}
        self._labels = {}  # name -> {label: version}

    @classmethod
    def load(cls, configs, flags):
        self = cls()
        log.info("servables", "Adding/updating models.")
        found = [(config, _wait_for_versions(config, flags)) for config in configs]
        failures = []
        for config, versions in found:
            log.info("servables", f" (Re-)adding model: {config.name}")
            for version, path in versions:
                try:
                    model = _load(config.name, version, path, flags)
                except ServingError as error:
                    failures.append(f"{{{_describe(config.name, version)} due to error: {error}}}, ")
                else:
                    self._models.setdefault(config.name, {})[version] = Servable(config.name, version, model)
        if failures:
            count = len(failures)
            raise ServingError(
                "UNKNOWN", f"{count} servable(s) did not become available: {{{''.join(failures)}}}"
            )
        for config in configs:
            self._set_labels(config.name, dict(config.version_labels))
        return self

    def find(self, name, version=None, label=None):
        """The Servable for a request; the latest version if neither version nor label is given."""
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            version = self._version_of_label(name, label)
        versions = self._models.get(name, {})
        if version is None:
            if versions:
                return versions[max(versions)]
            raise not_found(f"Servable not found for request: Latest({name})")
        if version not in versions:
            raise not_found(f"Servable not found for request: Specific({name}, {version})")
        return versions[version]

    def versions(self, name, version=None, label=None):
        """The versions whose status was asked for, latest first as TFS lists them."""
        if label is not None:
            version = self._version_of_label(name, label)
        versions = self._models.get(name, {})
        if version is not None:
            if version not in versions:
                raise not_found(f"Could not find version {version} of model {name}")
            return [version]
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        return sorted(versions, reverse=True)

    def _set_labels(self, name, labels):
        for version in labels.values():
            if version not in self._models.get(name, {}):
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {version} of model {name}, "
                    "which is not currently available for inference",
                )
        self._labels[name] = labels

    def _version_of_label(self, name, label):
        try:
            return self._labels[name][label]
        except KeyError:
            raise invalid_argument(f"Unrecognized servable version label: {label}") from None


def _wait_for_versions(config, flags):
    """The versions to load. TFS looks for a first version for ever; here the load retries bound it."""
    for attempt in range(flags.max_num_load_retries + 1):
        if attempt:
            time.sleep(flags.file_system_poll_wait_seconds)
        problem = f"No versions of servable {config.name} found under base path {config.base_path}"
        try:
            versions = storage.versions_to_serve(config)
        except ServingError as error:
            problem = error.message
            log.error(
                "servables", f"FileSystemStoragePathSource encountered a filesystem access error: {problem}"
            )
        else:
            if versions:
                return versions
    raise not_found(problem)


def _load(name, version, path, flags):
    what = _describe(name, version)
    log.info("servables", f"Loading servable version {what}")
    for attempt in range(flags.max_num_load_retries + 1):
        if attempt:
            time.sleep(flags.load_retry_interval_micros / 1e6)
            log.info("servables", f"Retrying of Loading servable: {what} retry: {attempt}")
        try:
            model = SavedModel(path, session_config(flags))
        except ServingError as error:
            log.error("servables", f"Loading servable: {what} failed: {error}")
            failure = error
        else:
            log.info("servables", f"Successfully loaded servable version {what}")
            return model
    log.error("servables", f"Servable {what} cannot be loaded: {failure}")
    raise failure


def _describe(name, version):
    return f"{{name: {name} version: {version}}}"
