"""What the comparisons run with: a virtual environment with the peers' packages, llama.cpp built for the instruction set, model files. All outside the tree."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
LLAMA_PROGRAMS = ("llama-bench", "llama-batched-bench", "llama-completion", "llama-quantize")
# What holds the peers to AVX2; llama.cpp is compiled for it.
HELD_TO_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(*command, **how):
    return subprocess.run([str(part) for part in command], check=True, **how)


def output_of(*command):
    return run(*command, stdout=subprocess.PIPE, text=True).stdout


def set_variables(isa):
    """The environment variables of both sides: nobody's choice of kernels but the library's own, unless it is held to AVX2."""
    for name in list(os.environ):
        if name.startswith(("OPENBLAS_", "ONEDNN_", "MKL_", "OMP_", "ATEN_")):
            del os.environ[name]
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    if isa:
        os.environ["LATHE_ISA"] = isa
    if isa == "avx2":
        os.environ.update(HELD_TO_AVX2)


def keep_tile_configuration(sources):
    """For GCC 12, which takes loading a tile configuration for a read of 8 of its 64 bytes and leaves the others unwritten: with AMX, llama.cpp's programs stop with
    an illegal instruction."""
    source = sources / "ggml/src/ggml-cpu/amx/mmq.cpp"
    text = source.read_text()
    load, written = "_tile_loadconfig(&tc);", 'asm volatile("" : : "r"(&tc) : "memory"); '
    if written not in text:
        source.write_text(text.replace(load, written + load))


class Environment:
    def __init__(self, options):
        self.cache = Path(options.cache).expanduser().resolve()
        self.cache.mkdir(parents=True, exist_ok=True)
        self.folder = Path(options.environment).expanduser().resolve() if options.environment else self.cache / "environment"
        self.given_llama_cpp, self.torch_index = options.llama_cpp, options.torch_index
        self.isa, self.threads = options.isa, options.threads
        self.programs = Path(options.programs).resolve()
        self.given_model, self.given_directory = options.model, options.model_directory

    def lathe(self, program):
        path = self.programs / program
        if not path.exists():
            sys.exit(f"bench/peers/run: {path} is missing: build Lathe first (scripts/build), or name its folder with --programs")
        return path

    def python(self):
        return self.folder / "bin/python"

    def installed(self):
        return {line.split("==")[0].lower(): line.split("==")[-1] for line in output_of(self.python(), "-m", "pip", "list", "--format=freeze").split()}

    def install(self, packages):
        """Makes the virtual environment where there is none, and installs what is missing of the packages."""
        if not self.python().exists():
            say(f"making {self.folder}")
            run(sys.executable, "-m", "venv", self.folder)
        installed = self.installed()
        missing = [package for package in packages if package not in installed]
        if "torch" in missing and self.torch_index:
            run(self.python(), "-m", "pip", "install", "-q", "torch", "--index-url", self.torch_index, stdout=sys.stderr)
            missing.remove("torch")
        if missing:
            say("installing " + " ".join(missing))
            run(self.python(), "-m", "pip", "install", "-q", *missing, stdout=sys.stderr)

    def llama_cpp(self):
        """The folder of llama.cpp's programs."""
        if self.given_llama_cpp:
            return Path(self.given_llama_cpp)
        held = self.isa == "avx2"
        sources = self.llama_cpp_sources()
        build = sources / ("build-avx2" if held else "build-native")
        if not all((build / "bin" / program).exists() for program in LLAMA_PROGRAMS):
            say(f"building llama.cpp in {build}")
            keep_tile_configuration(sources)
            # Without GGML_NATIVE the defaults are AVX2, FMA, F16C and BMI2.
            run("cmake", "-S", sources, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", f"-DGGML_NATIVE={'OFF' if held else 'ON'}",
                "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", stdout=sys.stderr)
            run("cmake", "--build", build, "--target", *LLAMA_PROGRAMS, stdout=sys.stderr)
        return build / "bin"

    def has_llama_cpp(self):
        return bool(self.given_llama_cpp) or any(self.cache.glob("llama_cpp_python-*/vendor/llama.cpp/build-*/bin/llama-bench"))

    def llama_cpp_version(self):
        """What the program says of itself, and the package that its sources came in."""
        said = run(self.llama_cpp() / "llama-completion", "--version", capture_output=True, text=True)
        package = [part for part in self.llama_cpp().resolve().parts if part.startswith("llama_cpp_python-")]
        return (said.stdout + said.stderr).splitlines()[0].removeprefix("version: ") + (f" of {package[-1]}" if package else "")

    def llama_cpp_sources(self):
        """llama.cpp as the current source package of llama-cpp-python has it."""
        found = sorted(self.cache.glob("llama_cpp_python-*/vendor/llama.cpp"))
        if not found:
            say("fetching llama.cpp's sources")
            run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", self.cache,
                "llama-cpp-python", stdout=sys.stderr)
            with tarfile.open(sorted(self.cache.glob("llama_cpp_python-*.tar.gz"))[-1]) as package:
                package.extractall(self.cache)
            found = sorted(self.cache.glob("llama_cpp_python-*/vendor/llama.cpp"))
        return found[-1]

    def model(self):
        """SmolLM2-135M-Instruct in Q4_1, unless --model names another GGUF file."""
        if not self.given_model:
            self.given_model = output_of(TREE / "scripts/fetch-model").split()[-1]
        return Path(self.given_model)

    def model_of_type(self, kind):
        """The model requantised: both sides get the same file, whose answers nobody reads."""
        model = self.model()
        if f".{kind}." in model.name:
            return model
        path = self.cache / f"{model.stem.rsplit('.', 1)[0]}.{kind}.gguf"
        if not path.exists():
            run(self.llama_cpp() / "llama-quantize", "--allow-requantize", model, path, kind, self.threads, stdout=sys.stderr, stderr=subprocess.DEVNULL)
        return path

    def model_directory(self, dtype):
        """The model as a Hugging Face directory of bf16 or f32: what PyTorch loads, and Lathe beside it."""
        if self.given_directory:
            return Path(self.given_directory)
        path = self.cache / f"{self.model().stem}-{dtype}"
        if not path.exists():
            run(self.lathe("lathe-model"), "convert", self.model(), path, "--dtype", dtype, stdout=sys.stderr)
        return path
