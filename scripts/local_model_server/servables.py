"""The models being served: loading them, and finding one for a request.

As in TFS, the newest version of a model is loaded first, and readiness waits for no other: older versions follow while
requests are served already, and one that fails to load stays behind in state END. A version with a label is waited for.
"""

import threading
import time
from dataclasses import dataclass

from local_model_server import log, storage
from local_model_server.saved_model import SavedModel
from local_model_server.status import ServingError, invalid_argument, not_found

START_INTERVAL_SECONDS = 0.1  # between the loads of two versions


@dataclass
class Servable:
    name: str
    version: int
    path: str
    model: SavedModel | None = None
    error: ServingError | None = None

    @property
    def state(self):
        return "AVAILABLE" if self.model else "END" if self.error else "LOADING"

    def load(self, flags, batching):
        what = f"{{name: {self.name} version: {self.version}}}"
        log.info("servables", f"Loading servable version {what}")
        for attempt in range(flags.max_num_load_retries + 1):
            if attempt:
                time.sleep(flags.load_retry_interval_micros / 1e6)
                log.info("servables", f"Retrying of Loading servable: {what} retry: {attempt}")
            try:
                model = SavedModel(self.path, flags, batching)
            except ServingError as error:
                log.error("servables", f"Loading servable: {what} failed: {error}")
                failure = error
            else:
                log.info("servables", f"Successfully loaded servable version {what}")
                self.model = model
                return
        log.error("servables", f"Servable {what} cannot be loaded: {failure}")
        self.error = failure


class Servables:
    def __init__(self):
        self._models = {}  # name -> {version: Servable}, newest first
        self._labels = {}  # name -> {label: version}

    @classmethod
    def load(cls, configs, flags, batching=None):
        self = cls()
        log.info("servables", "Adding/updating models.")
        at_once, later = [], []
        for config in configs:
            found = reversed(_wait_for_versions(config, flags))
            versions = {version: Servable(config.name, version, path) for version, path in found}
            log.info("servables", f" (Re-)adding model: {config.name}")
            self._models[config.name] = versions
            needed = {max(versions), *config.version_labels.values()}
            at_once += [servable for version, servable in versions.items() if version in needed]
            later += [servable for version, servable in versions.items() if version not in needed]
        for servable in at_once:
            servable.load(flags, batching)
        failed = [servable for servable in at_once if servable.error]
        if failed:
            texts = (f"{{{{name: {s.name} version: {s.version}}} due to error: {s.error}}}, " for s in failed)
            raise ServingError(
                "UNKNOWN", f"{len(failed)} servable(s) did not become available: {{{''.join(texts)}}}"
            )
        for config in configs:
            self._set_labels(config.name, dict(config.version_labels))

        def load_later():
            for servable in later:
                time.sleep(START_INTERVAL_SECONDS)
                servable.load(flags, batching)

        threading.Thread(target=load_later, name="loader", daemon=True).start()
        return self

    def find(self, name, version=None, label=None):
        """The Servable for a request; the latest version there is if neither version nor label is given."""
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        if label is not None:
            version = self._version_of_label(name, label)
        servables = self._models.get(name, {})
        if version is None:
            for servable in servables.values():
                if servable.model:
                    return servable
            raise not_found(f"Servable not found for request: Latest({name})")
        if version not in servables or not servables[version].model:
            raise not_found(f"Servable not found for request: Specific({name}, {version})")
        return servables[version]

    def fill_status(self, response, name, version=None, label=None):
        """Adds to a GetModelStatusResponse what was asked for, latest first as TFS lists them."""
        if label is not None:
            version = self._version_of_label(name, label)
        servables = self._models.get(name, {})
        if version is not None:
            if version not in servables:
                raise not_found(f"Could not find version {version} of model {name}")
            servables = {version: servables[version]}
        if not servables:
            raise not_found(f"Could not find any versions of model {name}")
        for servable in servables.values():
            entry = response.model_version_status.add(version=servable.version, state=servable.state)
            entry.status.SetInParent()  # there, though all its fields may be the defaults
            if servable.error:
                entry.status.error_code = servable.error.code
                entry.status.error_message = servable.error.message

    def _set_labels(self, name, labels):
        for version in labels.values():
            if version not in self._models[name]:
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
