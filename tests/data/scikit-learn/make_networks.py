"""Write small classifiers as scikit-learn exports them. Run once, in an environment of its own:

python -m venv /tmp/scikit && /tmp/scikit/bin/pip install scikit-learn skl2onnx
/tmp/scikit/bin/python tests/data/scikit-learn/make_networks.py
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = 3 * 4 * 4
rng = np.random.default_rng(7)
images = rng.random((60, FEATURES), np.float32)
labels = np.array(["alpha", "beta", "gamma"] * 20)
images[:, :3] += np.eye(3, dtype=np.float32)[[0, 1, 2] * 20]

classifiers = {
    "forest": RandomForestClassifier(4, max_depth=3, random_state=7),
    "logistic": make_pipeline(StandardScaler(), LogisticRegression()),
}
for name, classifier in classifiers.items():
    classifier.fit(images, labels)
    for suffix, zipmap in (("", False), ("-zipmap", True)):
        network = to_onnx(classifier, images[:1], options={"zipmap": zipmap})
        Path(__file__).with_name(f"{name}{suffix}.onnx").write_bytes(network.SerializeToString())
