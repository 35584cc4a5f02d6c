"""The models being served: which versions to load, loading them, and finding one for a request.

As in TFS, the newest version of each model is loaded first, and readiness waits for no other: older versions follow
while requests are served already, and an older version that does not load stays in state END.
"""

import logging
import os
from dataclasses import dataclass
from functools import partial
from threading import Semaphore, Thread

from grpc import StatusCode

from local_model_server import warm_up
from local_model_server.errors import ServingError, check, not_found
from local_model_server.saved_model import BatchQueue, SavedModel

log = logging.getLogger(__name__)


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

    def load(self, flags, new_queue):
        what = f"{{name: {self.name} version: {self.version}}}"
        try:
            model = SavedModel(self.path, flags, new_queue and new_queue())
            warm_up.play(model, self.path, flags.num_request_iterations_for_warmup)
            self.model = model
            log.info("Successfully loaded servable version %s", what)
        except ServingError as error:
            log.error("Servable %s cannot be loaded: %s", what, error)
            self.error = error


class Servables:
    """Loads the newest version of every model, then the others in the background."""

    def __init__(self, configs, flags, batching):
        new_queue = batching and partial(BatchQueue, Semaphore(batching["num_batch_threads"]), batching)
        self._models = {config.name: _versions_to_serve(config) for config in configs}  # newest first
        self._labels = {config.name: dict(config.version_labels) for config in configs}
        newest = [versions[0] for versions in self._models.values()]
        for servable in newest:
            servable.load(flags, new_queue)
        failed = [servable for servable in newest if servable.error]
        if failed:
            texts = "".join(f"{{{{name: {s.name} version: {s.version}}} due to error: {s.error}}}, " for s in failed)
            message = f"{len(failed)} servable(s) did not become available: {{{texts}}}"
            raise ServingError(StatusCode.UNKNOWN, message)

        def load_others():
            for versions in self._models.values():
                for servable in versions[1:]:
                    servable.load(flags, new_queue)

        Thread(target=load_others, daemon=True).start()

    def versions(self, name, version=None):
        """The Servables of a model, or that of one version."""
        return [servable for servable in self._models.get(name, []) if version in (None, servable.version)]

    def find(self, name, version=None, label=None):
        """The Servable for a request: the newest that is loaded, or the one whose version or label it names."""
        if label is not None:
            version = self._labels.get(name, {}).get(label)
            check(version is not None, f"Unrecognized servable version label: {label}")
        for servable in self.versions(name, version):
            if servable.model:
                return servable
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise not_found(f"Servable not found for request: {which}")


def _versions_to_serve(config):
    """The Servables of the versions that are asked for, or of the latest. A version is a folder named by a number."""
    try:
        versions = {int(name): name for name in os.listdir(config.base_path) if name.isdigit()}
    except OSError:
        raise not_found(f"Could not find base path {config.base_path} for servable {config.name}") from None
    wanted = set(config.model_version_policy.specific.versions) or {max(versions, default=None)}
    chosen = sorted(wanted & versions.keys(), reverse=True)
    if not chosen:
        raise not_found(f"No versions of servable {config.name} found under base path {config.base_path}")
    return [Servable(config.name, version, os.path.join(config.base_path, versions[version])) for version in chosen]
