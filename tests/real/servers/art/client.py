"""Run the Adversarial Robustness Toolbox's own attacks on an Open Inference server and print what they got as JSON.

    client.py knockoff|hopskipjump|membership BASE_URL INPUTS.npz [--api-key KEY]

All that ART knows of a model is what an outsider may: it sees a `BlackBoxClassifier` whose prediction function asks
over HTTP. INPUTS.npz holds the attacker's data, parameters and seed; it holds no truth, and whoever started this judges
what is printed. The attacks are ART's, unchanged. Ours are what ART leaves to its user and what makes them comparable:
the connection, the loss of an answer, a scikit-learn network that learns from probabilities, the starts of HopSkipJump
(ART would draw them without a seed), a new start after a walk's last iteration, and the count of its queries.
"""

import argparse
import http.client
import json
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from art.attacks.evasion import HopSkipJump
from art.attacks.extraction import KnockoffNets
from art.attacks.inference.membership_inference import MembershipInferenceBlackBox, MembershipInferenceBlackBoxRuleBased
from art.estimators.classification import BlackBoxClassifier
from art.estimators.classification.scikitlearn import ScikitlearnClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

BATCH = 64


class Api:
    """A model's probabilities over HTTP, and how many rows were asked."""

    def __init__(self, url: str, model: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self.path = f"/v2/models/{model}/infer"
        self.headers = {"content-type": "application/json", **headers}
        self.asked = 0

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of some rows, shape (n, k)."""
        rows = np.asarray(x, dtype=np.float64)
        tensor = {"name": "x", "datatype": "FP64", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        self.connection.request("POST", self.path, json.dumps({"inputs": [tensor]}), self.headers)
        response = self.connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body[:300].decode()}")
        self.asked += len(rows)
        found = next(o for o in json.loads(body)["outputs"] if o["name"] == "probabilities")
        return np.array(found["data"], dtype=np.float64).reshape(found["shape"])


class WithLoss(BlackBoxClassifier):
    """A black box whose loss ART can compute: the cross-entropy of its answers."""

    def compute_loss_from_predictions(self, pred: np.ndarray, y: np.ndarray, **kwargs: Any) -> np.ndarray:
        """Return -log of the probability of the recorded label, given one-hot."""
        return -np.log(np.maximum((pred * y).sum(axis=1), 1e-6))

    def compute_loss(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> np.ndarray:
        """Ask, and return the same."""
        return self.compute_loss_from_predictions(self.predict(x), y)


class Network(ScikitlearnClassifier):
    """A scikit-learn network that ART trains on probabilities.

    ART's own class takes the argmax of what it is to learn. The cross-entropy to probabilities is that of each row
    repeated for every class and weighted with the class's probability, which scikit-learn can do.
    """

    def fit(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        """Fit; `batch_size` and `nb_epochs` are those of KnockoffNets."""
        x, y = self._apply_preprocessing(x, y, fit=True)
        rows, classes = np.nonzero(y > 1e-3)
        repeats = len(rows) / len(x)
        self.model.set_params(batch_size=round(kwargs["batch_size"] * repeats), max_iter=kwargs["nb_epochs"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it ends after the epochs it was given
            self.model.fit(x[rows], classes, sample_weight=y[rows, classes])
        self._input_shape, self.nb_classes = self._get_input_shape(self.model), self._get_nb_classes()


def knockoff(victim: BlackBoxClassifier, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """KnockoffNets, random strategy: the copies' probabilities of `test`, one for each thing that they learn from."""
    said = {}
    for how, graded in (("answers", True), ("labels", False)):
        np.random.seed(int(inputs["seed"]))  # noqa: NPY002 -- ART draws from the global generator
        attack = KnockoffNets(
            victim, batch_size_fit=128, batch_size_query=BATCH, nb_epochs=int(inputs["epochs"]),
            nb_stolen=int(inputs["queries"]), sampling_strategy="random", use_probability=graded, verbose=False,
        )  # fmt: skip
        blank = MLPClassifier(
            (int(inputs["hidden"]),), learning_rate_init=3e-3, random_state=int(inputs["seed"]), n_iter_no_change=10_000
        )
        copy = attack.extract(inputs["pool"], thieved_classifier=Network(blank, preprocessing=(0.0, inputs["high"])))
        said[how] = copy.predict(inputs["test"]).tolist()
    return said


class Over(Exception):
    """An image's queries are spent, or it is done."""


class Watched:
    """What a search asks about one image, as everybody sees who makes a search's requests.

    Args:
        predict: asks.
        x: the image.
        y: its class.
        limit: most queries.
        enough: Euclidean distance of an adversarial example that ends it.
    """

    def __init__(
        self, predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray, y: int, limit: int, enough: float
    ) -> None:
        self.ask, self.x, self.y, self.limit, self.enough = predict, x, y, limit, enough
        self.spent = 0
        self.nearest, self.distance = x, np.inf

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Ask, and keep the nearest row that is of another class."""
        if self.spent + len(rows) > self.limit or self.distance <= self.enough:
            raise Over
        scores = self.ask(rows)
        self.spent += len(rows)
        away = np.where(scores.argmax(axis=1) != self.y, np.linalg.norm(rows - self.x, axis=1), np.inf)
        if away.min() < self.distance:
            self.nearest, self.distance = rows[away.argmin()], away.min()
        return scores


def hopskipjump(victim: BlackBoxClassifier, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """HopSkipJump: the nearest adversarial example asked about each image, and how many queries each took."""
    low, high = float(inputs["low"].min()), float(inputs["high"].max())
    varies = (inputs["high"] > inputs["low"]).astype(np.float32)
    found, spent = [], []
    for i, (x, y) in enumerate(zip(inputs["images"].astype(np.float32), inputs["labels"], strict=True)):
        watched = Watched(victim.predict_fn, x, int(y), int(inputs["limit"]), float(inputs["enough"]))
        model = BlackBoxClassifier(watched.predict, x.shape, victim.nb_classes, clip_values=(low, high))
        attack = HopSkipJump(
            model, BATCH, norm=2, max_iter=int(inputs["iterations"]), init_eval=int(inputs["first"]), verbose=False
        )
        rng = np.random.default_rng([int(inputs["seed"]), i])
        np.random.seed(rng.integers(2**31))  # noqa: NPY002 -- ART draws from the global generator
        one_hot = np.eye(victim.nb_classes)[[y]]
        try:
            # One start after the other until the queries are spent.
            while True:
                start = rng.uniform(inputs["low"], inputs["high"]).astype(np.float32)[None]
                if model.predict(start).argmax() != y:
                    attack.generate(x[None], one_hot, x_adv_init=start, mask=varies)
        except Over:
            found.append(watched.nearest.astype(float).tolist())
            spent.append(watched.spent)
    return {"examples": found, "spent": spent}


def membership(victim: BlackBoxClassifier, inputs: Mapping[str, Any], shadows: list[Api]) -> dict[str, Any]:
    """The rule, and MembershipInferenceBlackBox as shadow models taught it: scores of the candidates.

    `lr` on predictions is left out: a sum of terms of scores and of labels cannot see the score of the label.
    """
    x, y = inputs["candidates"], inputs["recorded"]
    inside = inputs["shadow_members"].astype(bool)
    answers = []
    for shadow in shadows:
        answers.append(BlackBoxClassifier(shadow.predict, x.shape[1:], victim.nb_classes).predict(x))
    members, others = np.nonzero(inside), np.nonzero(~inside)
    said = np.array(answers)
    found = {"rule": MembershipInferenceBlackBoxRuleBased(victim).infer(x, y, probabilities=True)[:, 1].tolist()}
    for told, kind in (("prediction", "gb"), ("prediction", "rf"), ("loss", "lr")):
        np.random.seed(int(inputs["seed"]))  # noqa: NPY002 -- its attack models draw from it
        attack = MembershipInferenceBlackBox(victim, told, kind)
        attack.fit(None, y[members[1]], None, y[others[1]], pred=said[members], test_pred=said[others])
        found[f"{told}, {kind}"] = attack.infer(x, y, probabilities=True)[:, 0].tolist()
    return found


def main() -> None:
    """Read what to do, attack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=["knockoff", "hopskipjump", "membership"])
    parser.add_argument("base_url", help="http://127.0.0.1:PORT of the server or of the guard before it")
    parser.add_argument("inputs", help="file of numpy arrays")
    parser.add_argument("--api-key", help="sent as `X-API-Key`")
    arguments = parser.parse_args()
    headers = {"X-API-Key": arguments.api_key} if arguments.api_key else {}
    with np.load(arguments.inputs) as file:
        inputs = dict(file)
    api = Api(arguments.base_url, str(inputs["model"]), headers)
    victim = WithLoss(api.predict, (int(inputs["size"]),), int(inputs["classes"]))
    if arguments.attack == "knockoff":
        found = knockoff(victim, inputs)
    elif arguments.attack == "hopskipjump":
        found = hopskipjump(victim, inputs)
    else:
        found = membership(victim, inputs, [Api(arguments.base_url, str(name), headers) for name in inputs["shadows"]])
    packages = ("adversarial-robustness-toolbox", "scikit-learn", "numpy")
    print(json.dumps(found | {"asked": api.asked, "versions": {name: version(name) for name in packages}}))


if __name__ == "__main__":
    main()
