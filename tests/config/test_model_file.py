"""The model file: what is accepted, and that whatever is not is refused in one line with a way out."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pcsim.config import ModelConfig, load_model, model_from_dict
from pcsim.config.sections import Section
from pcsim.errors import ConfigurationError

MODELS = Path(__file__).parents[2] / "models"
MINIMAL = """
[network]
layers = [4, 3, 2]
[data]
name = "digits"
[learning]
rate = 0.1
[training]
epochs = 1
"""


@pytest.fixture
def model_file(tmp_path):
    """A file with the given text."""

    def write(text: str = MINIMAL) -> Path:
        path = tmp_path / "x.toml"
        path.write_text(text)
        return path

    return write


def refusal(path, overrides=()) -> str:
    """The message with which a model is refused; it must be a single line that names the file."""
    with pytest.raises(ConfigurationError) as caught:
        load_model(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_defaults(model_file):
    """The documented defaults: a run that sets nothing must be the published sequential MQ run."""
    assert load_model(model_file()).to_dict() == {
        "name": "x",
        "description": "",
        "network": {
            "layers": [4, 3, 2],
            "activation": "relu",
            "output": "softmax",
            "clamp": "soft",
            "proximal_step": 100.0,
            "precision": None,
            "activity_decay": None,
            "dtype": "float32",
            "learn_output_from": "activity",
        },
        "data": {
            "name": "digits",
            "path": None,
            "directory": None,
            "test_fraction": 0.2,
            "validation_fraction": 0.0,
            "split_seed": 0,
            "target": "label",
        },
        "schedule": {
            "order": "sequential",
            "iterations": 3,
            "step_size": 0.05,
            "step_decay": "harmonic",
            "precisions": "constant",
        },
        "learning": {"rule": "mq", "rate": 0.1, "minimum_rate": 1e-3, "r": 1e-6, "decay": 0.9999},
        "training": {"epochs": 1, "batch": 64, "seed": 0, "shuffle": True},
        "hardware": {"model": "unit", "jitter": 0.0, "latency": 0.0, "link_latency": {}, "seed": 0},
        "messages": {
            "threshold": None,
            "error_threshold": None,
            "format": None,
            "error_format": None,
            "rounding": "nearest",
            "seed": 0,
        },
        "states": {"format": None, "rounding": "nearest", "seed": 0},
        "faults": {
            "loss": 0.0,
            "duplication": 0.0,
            "delay": 0.0,
            "reorder": 0.0,
            "delay_time": 0.0,
            "dead_layer": None,
            "dead_share": 1.0,
            "dead_step": 0,
            "seed": 0,
        },
        "trace": {
            "every": 10,
            "flush_seconds": 1.0,
            "events": True,
            "compression": "none",
            "chunk_kib": 1024,
            "buffer_mib": 64,
        },
        "probe": {},
    }


@pytest.mark.parametrize(
    ("overrides", "learning"),
    [
        (["learning.rule=sgd"], {"rule": "sgd", "rate": 0.1}),
        (
            ["learning.rule=adam"],
            {"rule": "adam", "rate": 0.1, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        ),
        (['learning={rule="nlms"}', "training.batch=1"], {"rule": "nlms"}),
    ],
)
def test_rules_have_their_own_keys_and_defaults(model_file, overrides, learning):
    """Each learning rule is a model of its own; a default in the wrong one would change a published run."""
    assert load_model(model_file(), overrides).to_dict()["learning"] == learning


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_models_load_and_survive_json(path):
    """Every model we ship is valid, and a trace's JSON attribute gives the same model back."""
    model = load_model(path)
    assert model.name == path.stem
    assert model_from_dict(json.loads(json.dumps(model.to_dict()))) == model


def test_shipped_models_hold_the_published_constants():
    """The demo and the Fashion-MNIST run are documented with these numbers."""
    digits, fashion = load_model(MODELS / "digits.toml"), load_model(MODELS / "fashion_mnist.toml")
    assert (digits.network.layers, digits.learning.rate) == ((64, 128, 128, 10), 1e-3)
    assert (digits.training.batch, digits.training.epochs) == (32, 30)
    assert set(digits.probe["error-flow"].record) == {"activity", "error"}
    assert digits.probe["error-flow"].layers == "all"
    assert (fashion.network.layers, fashion.learning.rate) == ((784, 512, 512, 10), 1e-4)
    assert (fashion.training.batch, fashion.training.epochs) == (64, 5)
    assert digits.schedule == fashion.schedule
    assert (digits.schedule.order, digits.schedule.iterations, digits.schedule.step_size) == (
        "sequential",
        3,
        0.05,
    )


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("schedule.order=simultaneous", "schedule", "order", "simultaneous"),
        ('schedule.order="simultaneous"', "schedule", "order", "simultaneous"),
        ("network.layers=[64,32,10]", "network", "layers", (64, 32, 10)),
        ("network.precision=[1, 2, 0.5]", "network", "precision", (1.0, 2.0, 0.5)),
        ("schedule.step_size=1", "schedule", "step_size", 1.0),
        (" training . shuffle = false ", "training", "shuffle", False),
        ("data.path=a=b", "data", "path", "a=b"),
        ("data.path=2024-01-31", "data", "path", "2024-01-31"),
        ("data.path=1\ntraining.seed = 2", "data", "path", "1\ntraining.seed = 2"),
        ("data.path=" + "[" * 5000, "data", "path", "[" * 5000),
        ("hardware.link_latency.2-1=5", "hardware", "link_latency", {"2-1": 5.0}),
        ("hardware.model=parametric", "hardware", "model", "parametric"),
    ],
)
def test_override(model_file, override, section, key, value):
    """Overrides reach their key with the type that TOML gives the text, else as bare text."""
    assert getattr(getattr(load_model(model_file(), [override]), section), key) == value


def test_later_override_wins_and_new_probes_can_be_added(model_file):
    """A sweep appends overrides to those of the user; a probe can be asked for without touching the file."""
    overrides = ["training.seed=1", "training.seed=2", 'probe.p.record=["weight"]', "probe.p.layers=[0, 1]"]
    model = load_model(model_file(), overrides)
    assert model.training.seed == 2
    assert (model.probe["p"].record, model.probe["p"].layers) == (("weight",), (0, 1))
    picked = load_model(model_file(), ['probe.p.record=["message"]', "probe.p.samples=[3, 0]"])
    assert picked.probe["p"].samples == (3, 0)
    assert model_from_dict(json.loads(json.dumps(picked.to_dict()))) == picked


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        # a wrong kind or range
        ("network.layers=[64]", "network.layers = [64]: expected a list of 2 or more"),
        ("network.layers=64", "network.layers = 64: expected a list"),
        ("network.layers=[4,0,2]", "network.layers[1] = 0: expected a number of at least 1"),
        ("network.layers=[4,3.5,2]", "network.layers[1] = 3.5: expected a whole number"),
        ("network.layers=[4,true,2]", "network.layers[1] = true: expected a whole number"),
        ('training.batch="3"', "training.batch = '3': expected a whole number"),
        ("training.batch=3.0", "training.batch = 3.0: expected a whole number"),
        ("training.batch=0", "training.batch = 0: expected a number of at least 1"),
        ("training.epochs=-1", "training.epochs = -1: expected a number of at least 0"),
        ("training.seed=-1", "training.seed = -1: expected a number of at least 0"),
        ("training.shuffle=1", "training.shuffle = 1: expected true or false"),
        ("schedule.iterations=-1", "schedule.iterations = -1: expected a number of at least 0"),
        ("schedule.step_size=0", "schedule.step_size = 0: expected a number greater than 0"),
        ("schedule.step_size=inf", "schedule.step_size = inf: expected a finite number"),
        ("network.proximal_step=0", "network.proximal_step = 0: expected a number greater than 0"),
        ("learning.rate=nan", "learning.rate = nan: expected a finite number"),
        ("learning.rate=0", "learning.rate = 0: expected a number greater than 0"),
        ("learning.rate=true", "learning.rate = true: expected a number"),
        ("data.test_fraction=1", "data.test_fraction = 1: expected a number less than 1"),
        ("data.test_fraction=0", "data.test_fraction = 0: expected a number greater than 0"),
        ("data.path=", "data.path = '': expected text that is not empty"),
        ("trace.every=0", "trace.every = 0: expected a number of at least 1"),
        ("trace.flush_seconds=0", "trace.flush_seconds = 0: expected a number greater than 0"),
        ("trace.compression=zip", "trace.compression = 'zip': expected one of none, gzip, lzf, zstd"),
        ("trace.chunk_kib=0", "trace.chunk_kib = 0: expected a number of at least 1"),
        ("trace.buffer_mib=-1", "trace.buffer_mib = -1: expected a number of at least 0"),
        ("hardware.jitter=-1", "hardware.jitter = -1: expected a number of at least 0"),
        ("network=3", "network = 3: expected a table of keys"),
        ("learning=3", "learning = 3: expected a table of keys"),
        # what is missing
        ("training={}", "training.epochs is missing: expected passes over the training set, at least 0"),
        ("learning={}", "learning.rate is missing: expected learning rate, a number greater than 0"),
        # names that are misspelt, and some that are like nothing
        ("schedule.order=sequental", "incremental, asynchronous; did you mean 'sequential'?"),
        ("schedule.order=xyzzy", "incremental, asynchronous"),
        ("schedule.ordr=sequential", "schedule.ordr = 'sequential': unknown key: did you mean 'order'?"),
        ("training.a\nb=1", "training.'a\\nb' = 1: unknown key"),
        ("schedule.xyzzy=1", "unknown key: known: iterations, order, precisions, step_decay, step_size"),
        ("training.epoch=3", "training.epoch = 3: unknown key: did you mean 'epochs'?"),
        ("nework.layers=[1,2]", "unknown section: did you mean 'network'?"),
        ("iterations=2", "iterations = 2: no section has this name: did you mean schedule.iterations?"),
        ("rule=mq", "did you mean learning.rule?"),
        ("path=x", "did you mean data.path or hardware.path?"),
        ("record=[]", "did you mean probe.NAME.record?"),
        ("probe.p={record=['error'],sampels=3}", "probe.p.sampels = 3: unknown key: did you mean 'samples'?"),
        ("probe.p={record=['eror']}", "probe.p.record[0] = 'eror': expected one of activity, error,"),
        (
            "learning.rule=madam",
            "learning.rule = 'madam': expected one of sgd, mq, adam, nlms; did you mean 'adam'",
        ),
        ("learning.rule=[1]", "learning.rule = [1]: expected one of sgd, mq, adam, nlms"),
        ("hardware.model=parametrc", "mesh, sanafe-loihi; did you mean 'parametric'?"),
        # keys of another variant
        ("learning.beta1=0.9", "not used by rule 'mq' but by adam: expected rate, minimum_rate, r, decay;"),
        ("learning.rule=nlms", "learning.rate = 0.1: not used by rule 'nlms' but by sgd, mq, adam: expected"),
        ("hardware.time_per_byte=1", "hardware.time_per_byte = 1: not used by model 'unit' but by"),
        # what contradicts another section
        ('learning={rule="nlms"}', "training.batch = 64: expected 1, as learning.rule is 'nlms'"),
        ("network.precision=[1,2]", "network.precision = [1.0, 2.0]: expected 3 numbers, one a layer"),
        ("network.activity_decay=[1]", "network.activity_decay = [1.0]: expected 3 numbers, one a layer"),
        ("network.precision=[1,0,1]", "network.precision[1] = 0: expected a number greater than 0"),
        (
            "network.activity_decay=[1,0,-1]",
            "network.activity_decay[2] = -1: expected a number of at least 0",
        ),
        ("data.name=npz", "data.path is missing: expected the .npz file, as data.name is 'npz'"),
        ("data.target=input", "network.layers = [4, 3, 2]: expected first = last, as data.target is 'input'"),
        ("probe.p={record=['error'],layers=[3]}", "probe.p.layers = [3]: expected layers 0 to 2;"),
        ("probe.p={record=['error'],layers=[-1]}", "there is no layer -1"),
        ("probe.p={record=['error'],layers='al'}", "probe.p.layers = 'al': expected 'all' or a list"),
        ("probe.p={record=['error'],layers=[]}", "expected 'all' or a list of layer numbers"),
        ("probe.p={record=['error'],layers=[true]}", "expected 'all' or a list of layer numbers"),
        ("probe.p={record=['error'],layers=[1,1]}", "probe.p.layers = [1, 1]: expected each entry once"),
        ("probe.p={record=['error','error']}", "probe.p.record = ['error', 'error']: expected each entry"),
        ("probe.p={record=['error'],samples=0}", "probe.p.samples = 0: expected a number of at least 1, or"),
        ("probe.p={record=['error'],samples=[]}", "expected a number of at least 1, or a list of indices"),
        ("probe.p={record=['error'],samples=[0,-1]}", "or a list of indices from 0"),
        ("probe.p={record=['error'],samples=[2,2]}", "probe.p.samples = [2, 2]: expected each entry once"),
        ("probe.p={record=['error'],samples=[64]}", "probe.p.samples = [64]: expected indices below 64"),
        ("probe.p={record=[]}", "probe.p.record = []: expected a list of 1 or more"),
        ("hardware.link_latency.2-0=1", "hardware.link_latency.2-0 = 1.0: expected a link 'source-target'"),
        ("hardware.link_latency.2-3=1", "between neighbours among layers 0 to 2"),
        ("hardware.link_latency.1=1", "between neighbours among layers 0 to 2"),
        ("hardware.link_latency.1-2=-1", "hardware.link_latency.1-2 = -1: expected a number of at least 0"),
        # what is no override
        ("schedule.iterations", "expected section.key=value, as in schedule.iterations=5"),
        ("=3", "expected section.key=value"),
        ("schedule..order=1", "expected section.key=value"),
        ("network.layers.x=3", "layers = [4, 3, 2]: expected a section before the dot"),
    ],
)
def test_refused(model_file, override, expected):
    """Whatever cannot be is refused, with the key, what was given, what was expected and the nearest name."""
    assert expected in refusal(model_file(), [override])


def test_choices_are_listed_once(model_file):
    """A name that is like none of the choices gets the list, and not a second list as its hint."""
    message = refusal(model_file(), ["network.activation=xyzzy"])
    assert message.endswith("expected one of relu, tanh, sigmoid, leaky_relu, gelu, identity")


@pytest.mark.parametrize("link", ["0-1", "1-0", "1-2", "2-1"])
def test_links_run_both_ways(model_file, link):
    """Predictions go up and errors down: each direction is a link of its own."""
    model = load_model(model_file(), [f"hardware.link_latency.{link}=0.5"])
    assert model.hardware.link_latency == {link: 0.5}


def test_error_blames_the_override_and_not_the_file(model_file):
    """A wrong override must not send the user looking into the file, and the other way round."""
    good, bad = "training.seed=1", "schedule.ordr=x"
    assert refusal(model_file(), [good, bad]).startswith(f" (override '{bad}'): schedule.ordr = 'x'")
    broken = MINIMAL.replace("epochs = 1", "epochs = -1")
    assert refusal(model_file(broken), [good]).startswith(": training.epochs = -1")


def test_a_file_of_any_name_is_read(tmp_path):
    """Nobody who names a file "my net [1].toml" has asked for a name that traces cannot have."""
    path = tmp_path / "my net [1].toml"
    path.write_text(MINIMAL)
    assert load_model(path).name == "my-net-1"
    assert "name = 'a/b': expected letters, digits, '_', '.' and '-' only" in refusal(path, ["name=a/b"])


@pytest.mark.parametrize(
    ("text", "tail"),
    [
        ("", ""),
        ("r = -1", "; learning.r = -1: expected a number greater than 0"),
        (
            "r = -1\nminimum_rate = -1\ndecay = 2",
            "; learning.r = -1: expected a number greater than 0; also wrong: learning.decay",
        ),
    ],
)
def test_tells_further_problems(model_file, text, tail):
    """One line, but the user need not come back for each correction."""
    message = refusal(model_file(MINIMAL.replace("rate = 0.1", f"rate = -1\n{text}")))
    assert message.startswith(": learning.rate = -1: expected a number greater than 0")
    assert message.endswith(tail)


def test_contradictions_are_told_too(model_file):
    """Checks across sections report like the others; each problem is blamed on its own override."""
    overrides = ["network.precision=[1]", "network.activity_decay=[1]"]
    expected = "expected 3 numbers, one a layer"
    assert refusal(model_file(), overrides) == (
        f" (override 'network.precision=[1]'): network.precision = [1.0]: {expected}; "
        f"(override 'network.activity_decay=[1]') network.activity_decay = [1.0]: {expected}"
    )


def test_misspelt_key_comes_before_the_missing_one(model_file):
    """`epoch = 3` is both an unknown and a missing key; only the first tells the user what happened."""
    message = refusal(model_file(MINIMAL.replace("epochs", "epoch")))
    assert message.startswith(
        ": training.epoch = 1: unknown key: did you mean 'epochs'? known: batch, epochs,"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[network]\nlayers = [4,\n\n= 2", "line 4"),
        ("[network\n", "line 1"),
        ("[network]\n[network]", "line 2"),
        ("a = [", "line 1, the end of the file"),
        ("", "network.layers is missing: expected layer sizes from input to output"),
        ("a = " + "[" * 5000, "broken TOML"),
        ("a = " + "9" * 5000, "broken TOML"),
    ],
)
def test_broken_files(model_file, text, expected):
    """A file that does not parse is refused with the line, however odd it is."""
    assert expected in refusal(model_file(text))


def test_missing_and_binary_files(tmp_path):
    """Neither a wrong path nor a wrong file may end in a traceback."""
    assert "No such file or directory: expected a readable model file" in refusal(tmp_path / "none.toml")
    assert "expected a readable model file" in refusal(tmp_path)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"a = \xff")
    assert ": byte 4 is not UTF-8: expected a TOML file" in refusal(binary)


def outcome(make, *arguments) -> ModelConfig | str:
    """The model, or the one line that says why there is none; any other exception is a failure."""
    try:
        return make(*arguments)
    except ConfigurationError as error:
        return str(error)


@given(st.text())
def test_any_override_is_applied_or_refused(text):
    """Whatever is typed after --set ends in a model or in a one-line ConfigurationError."""
    result = outcome(load_model, MODELS / "digits.toml", [text])
    assert isinstance(result, ModelConfig) or len(result.splitlines()) == 1


@given(st.text())
def test_any_text_reaches_a_text_key(text):
    """A value that is no TOML arrives as it was typed: never split at "=" or ".", never executed."""
    assume(not is_toml_value(text.strip()))
    model = load_model(MODELS / "digits.toml", [f"description={text}"])
    assert model.description == text.strip()


def is_toml_value(text: str) -> bool:
    """Whether TOML gives the text a meaning of its own."""
    try:
        return bool(tomllib.loads(f"value = {text}"))
    except ValueError:
        return False


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(sorted({*ModelConfig.model_fields, "x"}))


@given(
    st.dictionaries(KEYS, VALUES | st.dictionaries(st.sampled_from(["rule", "model", "rate", "p"]), VALUES))
)
def test_any_document_is_read_or_refused(document):
    """Whatever a file holds in place of a section, the answer is one line and never a traceback."""
    whole = {**tomllib.loads(MINIMAL), "name": "x", **document}
    result = outcome(model_from_dict, whole)
    assert isinstance(result, ModelConfig) or len(result.splitlines()) == 1


def test_frozen(model_file):
    """A model that is already in a trace must not change afterwards."""
    model = load_model(model_file())
    with pytest.raises(ValidationError):
        model.training.epochs = 5


def sections(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """All sections there are, found by inheritance."""
    return [kind, *(one for below in kind.__subclasses__() for one in sections(below))]


@pytest.mark.parametrize("section", sections(Section), ids=lambda section: section.__name__)
def test_every_key_is_described(section):
    """The documentation and `--help` print these texts."""
    nested = {"network", "data", "schedule", "learning", "training", "hardware", "trace"}
    nested |= {"messages", "states", "faults"}
    for name, field in section.model_fields.items():
        assert field.description or (section is ModelConfig and name in nested)


def test_imports_little():
    """`pcsim --help` reads this module: it must load neither NumPy nor anything else of pcsim."""
    code = "import sys, pcsim.config; print(*sorted(name for name in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("pcsim.")}
    assert ours == {
        "pcsim.architecture",
        "pcsim.config",
        "pcsim.config.contradictions",
        "pcsim.config.file",
        "pcsim.config.model",
        "pcsim.config.problems",
        "pcsim.config.sections",
        "pcsim.config.variants",
        "pcsim.config.wording",
        "pcsim.errors",
        "pcsim.shipped",
    }
    assert "numpy" not in loaded
