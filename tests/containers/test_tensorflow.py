"""A container in which TensorFlow really computes: the environment of the tests comes in read-only volumes, and its
stand-in for TensorFlow Serving takes the place of the program in the image."""

import sys
import sysconfig
from pathlib import Path

from tests.harness.constants import CSV, INSTANCES, MODELS, ROOT, STAND_IN

from .case import ContainerCase, engine_or_skip

setUpModule = engine_or_skip


class TensorFlow(ContainerCase):
    def test_predictions(self):
        if not MODELS.exists():
            self.skipTest(f"SKIPPED: there are no models in {MODELS}; scripts/demo.sh makes them")
        environment = Path(sys.prefix).resolve()
        # The links of a virtual environment lead to its Python: both are where they are outside.
        folders = {environment, ROOT / "scripts"}
        # The image has the system's Python, in the same version.
        if not sys.base_prefix.startswith("/usr"):
            folders |= {Path(sys.base_prefix), Path(sysconfig.get_path("stdlib"))}
        options = [word for folder in sorted(folders) for word in ("--volume", f"{folder}:{folder}:ro")]
        env = {
            "SAGEMAKER_TFS_MODEL_SERVER": STAND_IN,
            "MODEL_SERVER_PYTHON": environment / "bin" / "python3",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
        }
        inside = "/opt/ml/model/half_plus_three"
        models = (MODELS / "half_plus_three").resolve()
        container = self.serve("python", models, inside=inside, env=env, options=options)
        self.check_predictions(self.invoke(container, INSTANCES))
        self.check_predictions(self.invoke(container, "1.0\n2.0\n5.0\n", CSV))
        version = "tfs-model-name=half_plus_three,tfs-model-version=123"
        self.check_json(self.invoke(container, "10.0", attributes=version), {"predictions": [8.0]})
        self.assertEqual(self.invoke(container, '{"instances": ["x"]}').status, 400)
        self.check_stops(container)
