"""A container in which TensorFlow really computes: the environment of the tests comes in read-only volumes, and its
stand-in for TensorFlow Serving takes the place of the program in the image."""

import json
import pathlib
import sys
import sysconfig
import unittest

from harness import ATTRIBUTES, MODELS, PREDICTIONS, ROOT, Case, engine_or_skip

setUpModule = engine_or_skip


class TensorFlow(Case):
    def test_predictions(self):
        if not MODELS.exists():
            self.skipTest(f"SKIPPED: there are no models in {MODELS}; scripts/demo.sh makes them")
        # The links of a virtual environment lead to its Python: both are where they are outside.
        folders = {pathlib.Path(sys.prefix).resolve(), ROOT / "scripts"}
        # Python of the system is in the image, in the same version.
        if not sys.base_prefix.startswith("/usr"):
            folders |= {pathlib.Path(sys.base_prefix), pathlib.Path(sysconfig.get_path("stdlib"))}
        options = [word for folder in sorted(folders) for word in ("--volume", f"{folder}:{folder}:ro")]
        env = {
            "SAGEMAKER_TFS_MODEL_SERVER": ROOT / "scripts" / "tensorflow_model_server",
            "MODEL_SERVER_PYTHON": pathlib.Path(sys.prefix).resolve() / "bin" / "python3",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "SAGEMAKER_TFS_ENABLE_BATCHING": "true",
        }
        models = (MODELS / "half_plus_three").resolve()
        container = self.start("python", models, inside="/opt/ml/model/half_plus_three", env=env, options=options)
        container.wait_ready()
        self.check(container.invoke('{"instances": [1.0, 2.0, 5.0]}'), PREDICTIONS)
        self.check(container.invoke("1.0\n2.0\n5.0\n", "text/csv"), PREDICTIONS)
        answer = container.invoke("10.0", **{ATTRIBUTES: "tfs-model-name=half_plus_three,tfs-model-version=123"})
        self.assertEqual(json.loads(answer.body), {"predictions": [8.0]})
        answer = container.invoke('{"instances": ["x"]}')
        self.assertEqual(answer.status, 400, answer.text)
        self.assertLess(container.stop(), 15)
        self.assertEqual(container.exit_code(), 0)


if __name__ == "__main__":
    unittest.main()
