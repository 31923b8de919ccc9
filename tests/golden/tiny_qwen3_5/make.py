#!/usr/bin/env python3
"""Random Qwen3.5s as Hugging Face directories, with logits, loss and the gradient of every parameter. text: three of four layers gated delta nets with
two value heads for each key head, and as GGUF. pictures: what sees pictures, too, with as many value heads as key heads, three taps and a tied
embedding; what is expected is its text model's."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen3_5Config, Qwen3_5ForCausalLM, Qwen3_5ForConditionalGeneration, Qwen3_5TextConfig  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=1, head_dim=16, vocab_size=96,
              max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1, linear_key_head_dim=8,
              linear_num_key_heads=2, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25})
TEXT = dict(num_hidden_layers=4, linear_num_value_heads=4, linear_value_head_dim=16, tie_word_embeddings=False)
PICTURES = dict(num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], linear_num_value_heads=2,
                linear_value_head_dim=8, linear_conv_kernel_dim=3, tie_word_embeddings=True)
VISION = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, num_position_embeddings=16, patch_size=4)
torch.set_num_threads(1)


def text_of_pictures(folder):
    """The text model by itself, as transformers reads it out of the whole."""
    text = HERE / "text_of_pictures"
    Qwen3_5ForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(text)
    return text


torch.manual_seed(129)
model = tiny.with_random_decays(tiny.with_random_vectors(Qwen3_5ForCausalLM(Qwen3_5TextConfig(**SHARED, **TEXT)).float().eval()))
model.save_pretrained(HERE / "text")
sequences = tiny.sequences([5, 37, 70], seed=130, vocabulary=96)
tiny.write_expected(HERE / "text", Qwen3_5ForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE / "text", Qwen3_5ForCausalLM, "qwen35")

torch.manual_seed(120)
whole = Qwen3_5Config(text_config={**SHARED, **PICTURES}, vision_config=VISION, image_token_id=90, video_token_id=91, vision_start_token_id=92,
                      vision_end_token_id=93, tie_word_embeddings=True)
pictures = tiny.with_random_decays(tiny.with_random_vectors(Qwen3_5ForConditionalGeneration(whole).float().eval()))
pictures.save_pretrained(HERE / "pictures")
text = text_of_pictures(HERE / "pictures")
sequences = tiny.sequences([5, 37, 40], seed=121, vocabulary=96)
tiny.write_expected(text, Qwen3_5ForCausalLM, sequences, greedy=sequences[1][:9])
for name in ("expected.json", "expected.safetensors"):
    shutil.move(text / name, HERE / "pictures" / name)
shutil.rmtree(text)
(HERE / "pictures" / "generation_config.json").unlink(missing_ok=True)
oracle.write_versions(HERE)
