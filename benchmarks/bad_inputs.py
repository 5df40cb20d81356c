"""Bad inputs as data: what a stranger types or brings, and the words that the one line in answer must hold.

``LISTED`` are the 28 rows that the project promised from the start, ``FURTHER`` were found since. ``{models}`` stands
for the folder of :mod:`faulty_checkpoints`, ``{study}`` for a folder in which a small study has run.
"""

from __future__ import annotations

from dataclasses import dataclass

RUN = "run experiment=ci_tiny "
PLAN = "plan experiment=ci_tiny "


@dataclass(frozen=True)
class Bad:
    """``command``: as typed in a shell; ``words``: all of them must be in the line; ``code``: the exit code wanted.

    ``files``: written beforehand, by name. ``study``: in a folder where a study ran. ``seconds``: that it may take.
    """

    what: str
    command: str
    words: tuple[str, ...]
    code: int = 2
    files: tuple[tuple[str, str], ...] = ()
    study: bool = False
    seconds: float = 2.0


def model(name: str, head: str = "causal_lm", verb: str = "run") -> str:
    """A study of ``models/<name>``."""
    return f"{verb} experiment=ci_tiny model={head} model.path={{models}}/{name}"


EMPTY = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass None_:\n    def documents(self):\n        return ()\n"
UNLABELLED = """from dataclasses import dataclass
from objectives.protocols.corpus import Document
@dataclass(frozen=True)
class Plain:
    def documents(self):
        return tuple(Document(str(i), f"text number {i}") for i in range(50))
"""
OWN = "'allow_targets=[mine]' 'task.corpus._target_=mine."

LISTED = (
    Bad("a text for a number", RUN + "workload.batch_size=abc", ("workload.batch_size", "integer", "abc")),
    Bad("a batch of none", RUN + "workload.batch_size=0", ("workload.batch_size", ">= 1", "0")),
    Bad("a batch of -1", RUN + "workload.batch_size=-1", ("workload.batch_size", ">= 1", "-1")),
    Bad("an empty floor", RUN + "accuracy_floor.epsilon=", ("accuracy_floor.epsilon",)),
    Bad("a floor in per cent", RUN + "accuracy_floor.epsilon=90", ("accuracy_floor.epsilon", "90", "0.9")),
    Bad("a misspelt key", RUN + "bathc=3", ("bathc",)),
    Bad("an unknown model", "run model=nope", ("nope", "smollm2_135m")),
    Bad("a missing model folder", RUN + "model=causal_lm model.path=./nowhere", ("model.path", "nowhere", "not found")),
    Bad("a hub id while offline", RUN + "model=causal_lm model.path=someone/something", ("model.path", "someone/something")),
    Bad("weights that broke off", model("truncated"), ("model.path", "model.safetensors", "bytes")),
    Bad("weights that are garbage", model("garbage"), ("model.path", "model.safetensors")),
    Bad("more layers in the config than in the weights", model("one_layer_more"), ("model.path", "3", "2")),
    Bad("fewer layers in the config than in the weights", model("one_layer_less"), ("model.path", "1", "2")),
    Bad("no tokenizer", model("no_tokenizer"), ("model.path", "tokenizer")),
    Bad("pickled weights only", model("pickled"), ("model.path", "save_pretrained")),
    Bad("remote code", model("remote_code"), ("model.path", "remote")),
    Bad(
        "a data set without labels", "run experiment=minilm_retrieval model=encoder model.path={models}/bert " + OWN + "Plain'",
        ("task", "summary"), files=(("mine.py", UNLABELLED),),
    ),
    Bad("an empty data set", RUN + OWN + "None_' '~task.corpus.split'", ("task", "0"), files=(("mine.py", EMPTY),)),
    Bad("a prompt longer than the context", model("gpt2") + " workload.prompt_tokens=300", ("prompt_tokens", "256")),
    Bad("a tokenizer larger than the embedding", model("larger_tokenizer"), ("model.path", "1999", "512")),
    Bad("a width without kernel", RUN + "'space.quantization.bits=[16,3]'", ("space.quantization.bits", "3", "simulate")),
    Bad("a ratio of 1", RUN + "'space.pruning.ratio=[0,1.0]'", ("space.pruning.ratio", "< 1", "1.0")),
    Bad("nothing to vary", RUN + "space={{}} '~space.pruning' '~space.quantization' '~space.workload' '~space.runtime'", ("space",)),
    Bad("the same name, another definition", RUN + "study_name=mine seed=0 task.documents=5", ("study_name", "task.documents", "mine"), study=True),
    Bad("a home that cannot be written", RUN + "home=file/mlruns", ("home", "file/mlruns"), files=(("file", ""),)),
    Bad("a storage that is none", RUN + "storage=nosuch://user:secret@host/x", ("storage", "host/x")),
    Bad("a GPU that is not there", RUN + "device=cuda", ("device", "cuda")),
    Bad("no trials", RUN + "n_trials=0", ("n_trials", ">= 1", "0")),
    Bad("a negative time", RUN + "max_seconds=-5", ("max_seconds", "> 0", "-5")),
    Bad("an unknown task", RUN + "task=nope", ("nope", "retrieval")),
    Bad("an unknown metric", RUN + "'objectives=[speeed]'", ("objectives", "speeed", "speedup")),
)  # fmt: skip

FURTHER = (
    # checkpoints
    Bad("a file as model", RUN + "model=causal_lm model.path=./file", ("model.path", "file"), files=(("file", ""),)),
    Bad("an empty folder", model("empty"), ("model.path", "config.json")),
    Bad("no config.json", model("no_config"), ("model.path", "config.json")),
    Bad("a torn config.json", model("torn_config"), ("model.path", "config.json")),
    Bad("a config.json that is a list", model("list_config"), ("model.path", "config.json")),
    Bad("empty weights", model("empty_weights"), ("model.path", "model.safetensors")),
    Bad("a missing shard", model("missing_shard"), ("model.path", "model-00002-of-00002.safetensors")),
    Bad("another width in the config", model("another_width"), ("model.path", "96", "64")),
    Bad("another vocabulary in the config", model("another_vocabulary"), ("model.path", "300", "512")),
    Bad("GGUF only", model("gguf"), ("model.path", "gguf")),
    Bad("ONNX only", model("onnx"), ("model.path", "onnx")),
    Bad("an unknown architecture", model("unknown"), ("lama3", "llama")),
    Bad("a state-space model", model("state_space"), ("mamba",)),
    Bad("a vision model", model("vision"), ("vit",)),
    Bad("quantised by GPTQ", model("gptq"), ("quantised already", "gptq", "4")),
    Bad("quantised by AWQ", model("awq"), ("quantised already", "awq")),
    Bad("quantised by bitsandbytes", model("bitsandbytes"), ("quantised already", "bitsandbytes")),
    Bad("quantised to fp8", model("fp8"), ("quantised already", "fp8")),
    Bad("quantised by llm-compressor", model("compressed_tensors"), ("quantised already", "compressed-tensors")),
    Bad("an adapter", model("adapter"), ("adapter", "merge")),
    Bad("a diffusion pipeline", model("diffusers"), ("model.path",)),
    Bad("a winner as model", model("winner"), ("model.path", "paretune")),
    Bad("an encoder as decoder", model("bert"), ("model.head", "bert", "encoder")),
    Bad("RoBERTa as decoder", model("roberta"), ("model.head", "roberta", "encoder")),
    Bad("an encoder-decoder as decoder", model("t5"), ("model.head", "t5", "seq2seq")),
    Bad("a decoder as encoder-decoder", "run model=seq2seq model.path={models}/llama workload=translation", ("task", "seq2seq")),
    Bad("the same in plan", model("gptq", verb="plan"), ("quantised already",)),
    Bad("a missing folder in plan", PLAN + "model=causal_lm model.path=./nowhere", ("model.path", "nowhere")),
    Bad("an asset that is none", RUN + "model.path=asset:nope", ("asset", "nope")),
    Bad("an absolute path that is not there", RUN + "model=causal_lm model.path=/no/such/model", ("/no/such/model",)),
    Bad("an empty path", RUN + "model=causal_lm model.path=", ("model.path",)),
    Bad("no path", "run model=causal_lm", ("model.path", "required")),
    Bad("an unknown head", RUN + "model.head=causal", ("model.head", "causal_lm")),
    # lengths and sizes
    Bad("texts beyond the positions", model("gpt2") + " task.tokens=400", ("task.tokens", "400", "256")),
    Bad("prompts beyond the positions, one of two", model("gpt2") + " '+space.workload.prompt_tokens=[300,400]'", ("space.workload.prompt_tokens", "256")),
    Bad("a sentence beyond an encoder's positions", "run experiment=minilm_retrieval model=encoder model.path={models}/bert workload.tokens=512", ("workload.tokens", "512", "256")),
    Bad("Llama beyond its positions", model("llama") + " workload.prompt_tokens=250 workload.new_tokens=10", ("prompt_tokens", "256")),
    Bad("a batch that no machine holds", RUN + "'space.workload.batch_size=[1000000000]'", ("batch_size", "1000000000")),
    Bad("the same in plan", PLAN + "'space.workload.batch_size=[1000000000]'", ("batch_size", "1000000000")),
    Bad("new tokens without end", RUN + "workload.new_tokens=100000000", ("new_tokens",)),
    # numbers
    Bad("half a batch", RUN + "workload.batch_size=1.5", ("workload.batch_size", "integer", "1.5")),
    Bad("a batch that is a list", RUN + "'workload.batch_size=[1,2]'", ("workload.batch_size", "integer")),
    Bad("a batch of null", RUN + "workload.batch_size=null", ("workload.batch_size", "integer")),
    Bad("true as a batch", RUN + "workload.batch_size=true", ("workload.batch_size", "integer")),
    Bad("a ratio of nan", RUN + "pruning.ratio=nan", ("pruning.ratio",)),
    Bad("a ratio below 0", RUN + "'space.pruning.ratio=[-0.1,0.1]'", ("space.pruning.ratio", "-0.1")),
    Bad("a floor of nan", RUN + "accuracy_floor.epsilon=nan", ("accuracy_floor.epsilon",)),
    Bad("a floor below 0", RUN + "accuracy_floor.epsilon=-0.1", ("accuracy_floor.epsilon", "-0.1")),
    Bad("a seed below 0", RUN + "seed=-1", ("seed", ">= 0")),
    Bad("a seed of 1.5", RUN + "seed=1.5", ("seed", "integer")),
    Bad("time without end", RUN + "max_seconds=inf", ("max_seconds",)),
    Bad("patience of 0", RUN + "patience=0", ("patience", ">= 1")),
    Bad("no rounds", RUN + "timing.min_rounds=0", ("timing.min_rounds",)),
    Bad("a worker without time", RUN + "executor.timeout=0", ("executor.timeout",)),
    Bad("zero threads", RUN + "device=cpu device.threads=0", ("device.threads", ">= 1")),
    Bad("CPU time of two threads", RUN + "device=cpu device.threads=2 timing.clock=cpu", ("timing.clock",)),
    # the space
    Bad("a value twice", RUN + "'space.workload.batch_size=[1,1]'", ("space.workload.batch_size", "differ")),
    Bad("an empty axis", RUN + "'space.workload.batch_size=[]'", ("space.workload.batch_size",)),
    Bad("a text on an axis of numbers", RUN + "'space.quantization.bits=[16,four]'", ("space.quantization.bits", "four")),
    Bad("an unknown axis", RUN + "'+space.workload.batchsize=[1]'", ("space.workload.batchsize", "batch_size")),
    Bad("an unknown part", RUN + "'+space.prunning.ratio=[0.1]'", ("space.prunning", "pruning")),
    Bad("a runtime that is none", RUN + "'space.runtime.name=[torch,openvin]'", ("openvin", "openvino")),
    Bad("a mapping as axis", RUN + "'space.pruning.ratio={a:1}'", ("space.pruning.ratio",)),
    Bad("a first cell that is none", RUN + "'first=[{pruning.ratio:0.33}]'", ("first", "0.33")),
    Bad("a first that is no list", RUN + "first=3", ("first", "3")),
    Bad("a runtime for GPUs", RUN + "device=cpu 'space.runtime.name=[cuda_graphs]'", ("cuda_graphs",)),
    # keys and choices
    Bad("an unknown key of a part", RUN + "+pruning.rate=0.5", ("pruning.rate", "ratio")),
    Bad("an unknown key of a corpus", RUN + "+task.corpus.path=mine.txt", ("task.corpus.path",)),
    Bad("an unknown sampler", RUN + "sampler=bayes", ("bayes", "frontier")),
    Bad("an unknown pruner", RUN + "pruning=nope", ("nope", "structured")),
    Bad("an unknown quantiser", RUN + "quantization=nope", ("nope", "gptq")),
    Bad("an unknown experiment", "run experiment=quickstrat", ("quickstrat", "quickstart")),
    Bad("a part that is a number", RUN + "pruning=5", ("pruning", "5")),
    Bad("a part that is null", RUN + "device=null", ("device",)),
    Bad("a target outside", RUN + "task._target_=os.system", ("task._target_", "os.system")),
    Bad("a target that is not there", RUN + "task._target_=objectives.tasks.nope.Nope", ("task._target_", "nope")),
    Bad("a nested target outside", RUN + "task.corpus._target_=pandas.read_pickle", ("task.corpus._target_", "read_pickle")),
    Bad("a target of another kind", RUN + "sampler._target_=objectives.devices.cpu.Cpu", ("sampler",)),
    Bad("an own module that is not there", RUN + "'allow_targets=[mine]' task._target_=mine.Task", ("task._target_", "mine")),
    Bad("an own task without head", RUN + "'allow_targets=[mine]' 'task={{_target_:mine.Task}}'", ("task", "head"), files=(("mine.py", "class Task:\n    def __init__(self, **settings):\n        pass\n    def evaluate(self, model):\n        return 0.5\n"),)),
    Bad("one metric twice", RUN + "'objectives=[latency.p95,latency_p95]'", ("objectives", "once")),
    Bad("no metric", RUN + "'objectives=[]'", ("objectives",)),
    Bad("a condition as metric", RUN + "'objectives=[drift]'", ("objectives", "drift")),
    Bad("a task for encoders on a decoder", RUN + "task=retrieval", ("task", "encoder")),
    Bad("a workload for encoders on a decoder", "run workload=encoding", ("workload", "encoder")),
    Bad("an expression that is none", RUN + "tradeoff=expression tradeoff.expression=import", ("tradeoff",)),
    Bad("a study's name with a slash", RUN + "study_name=a/b", ("study_name", "a/b")),
    Bad("a study's name of 300 letters", RUN + "study_name=" + "a" * 300, ("study_name",)),
    Bad("a project's name with a space", RUN + "'project=my project'", ("project", "my project")),
    Bad("a warm start from nowhere", RUN + "warm_start=nothing", ("warm_start", "nothing")),
    # words of the shell and of Hydra
    Bad("an unknown command", "rum experiment=ci_tiny", ("rum", "run")),
    Bad("a word without value", RUN + "verbose", ("verbose",)),
    Bad("an open bracket", RUN + "'objectives=[throughput'", ("objectives", "[throughput")),
    Bad("an open quote", RUN + "\"model.path='x\"", ("model.path",)),
    Bad("a config folder that is not there", PLAN + "--config-dir=nowhere", ("nowhere",)),
    Bad("an unknown option", RUN + "--fast", ("--fast",)),
    Bad("a Windows path", RUN + "model=causal_lm 'model.path=C:\\models\\mine'", ("model.path",)),
    Bad("a home below a file in the middle", RUN + "home=file/x/y", ("home",), files=(("file", ""),)),
    # after the fact
    Bad("a report of nothing", "report", ("storage",)),
    Bad("a report of an unknown study", "report study=nope", ("study", "nope", "mine"), study=True),
    Bad("another number of trials afterwards", "report n_trials=3", ("n_trials",), study=True),
    Bad("a floor of a text afterwards", "report accuracy_floor.epsilon=high", ("accuracy_floor.epsilon", "high"), study=True),
    Bad("an unknown metric afterwards", "report 'objectives=[speeed]'", ("objectives", "speeed"), study=True),
    Bad("the best by an unknown metric", "best objective=speeed", ("objective", "speeed"), study=True),
    Bad("the best below a text", "best max_memory=much", ("max_memory", "much"), study=True),
    Bad("an export over a folder", "export folder=mlruns", ("folder", "mlruns"), study=True),
    Bad("an export of an unknown trial", "export trial=77", ("trial", "77"), study=True),
    Bad("an export of trial one", "export trial=one", ("trial", "one"), study=True),
    Bad("a comparison with nothing", "compare study=mine with=nope", ("with", "nope"), study=True),
    Bad("a comparison of one", "compare study=mine", ("with",), study=True),
    Bad("a word in report", "report latest", ("latest",), study=True),
    Bad("an unknown asset", "fetch nope", ("nope", "smollm2-135m")),
    Bad("a port that is none", "ui port=eighty", ("port", "eighty")),
    Bad("pages of no folder", "ui home=nowhere", ("nowhere",)),
)  # fmt: skip
