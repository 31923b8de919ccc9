#!/usr/bin/env python3
"""Three random Qwen3s as Hugging Face directories, with logits, loss and the gradient of every parameter; two of them as GGUF, one
with a PEFT adapter too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM  # noqa: E402

sys.path.insert(0, str(oracle.HERE / "lora_sft"))
from save import save_adapter  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([5, 37, 40], seed=13, vocabulary=96)
OPTIONS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "attention_bias": True, "hidden_act": "gelu_pytorch_tanh"}
torch.set_num_threads(1)


def random_qwen3(seed, **options):
    """Heads of 16 in a width of 32: four times 16 is not the width."""
    torch.manual_seed(seed)
    config = Qwen3Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=48,
                         vocab_size=96, max_position_embeddings=128, rope_theta=1000000.0, bos_token_id=1, eos_token_id=2,
                         initializer_range=0.1, **options)
    return tiny.with_random_vectors(Qwen3ForCausalLM(config).float().eval())


def check_gguf(folder):
    """transformers finds the same weights in the file (of the config, its reader leaves out head_dim and vocab_size)."""
    ids = torch.tensor([IDS[1]])
    wanted = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(ids).logits
    config = Qwen3Config.from_pretrained(folder)
    found = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", config=config, dtype=torch.float32).eval()(ids).logits
    assert float((wanted - found).abs().max()) < 1e-5


def write_adapter(base, folder):
    """LoRA on every linear, B not zero; logits, and the gradients of A and B."""
    torch.manual_seed(6)
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = 0.2 * torch.randn_like(p)
    save_adapter(model, folder)
    _, _, logits, gradients = tiny.run(model, torch.float64, IDS)
    gradients = {f"grad.{n.replace('.default.', '.')}": g for n, g in gradients.items()}
    save_file({**logits, **gradients}, folder / "expected.safetensors")


def main():
    for name, seed, options in (("untied", 3, {}), ("tied", 4, {"tie_word_embeddings": True}), ("options", 5, OPTIONS)):
        random_qwen3(seed, **options).save_pretrained(HERE / name)
        tiny.write_expected(HERE / name, Qwen3ForCausalLM, IDS)
        if name != "options":
            tiny.write_gguf(HERE / name, Qwen3ForCausalLM, "qwen3")
    write_adapter(HERE / "untied", HERE / "adapter")
    oracle.write_versions(HERE)
    for name in ("untied", "tied"):
        check_gguf(HERE / name)


main()
