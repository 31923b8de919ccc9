#!/usr/bin/env python3
"""Random models that see pictures as Hugging Face directories, and the logits of a text from the whole model in float64. They are as transformers 5
saves them, which is as their hubs have them, but for llava, whose weights go by the names of its modules, and qwen2_vl, with the text model's fields
among the whole's."""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([24], seed=133, vocabulary=90)[0]  # none of a picture's
SHARED = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=48, vocab_size=96,
              max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1)
SIGLIP = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
QWEN_IDS = dict(image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93)
QWEN_VISION = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=32, patch_size=4)
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 1.0,
        "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4}
MODELS = {
    "gemma3": dict(text_config=dict(SHARED, head_dim=16, query_pre_attn_scalar=16, sliding_window=8, model_type="gemma3_text"),
                   vision_config=dict(SIGLIP, model_type="siglip_vision_model"), mm_tokens_per_image=4, image_token_index=90, boi_token_index=91,
                   eoi_token_index=92),
    "mistral3": dict(text_config=dict(SHARED, head_dim=16, model_type="ministral3", rope_parameters=YARN),
                     vision_config=dict(SIGLIP, head_dim=8, model_type="pixtral"), image_token_index=90, tie_word_embeddings=False),
    "qwen2_vl": dict(text_config=dict(SHARED, rope_parameters=MROPE, model_type="qwen2_vl_text"), tie_word_embeddings=True,
                     vision_config=dict(depth=1, embed_dim=16, hidden_size=32, num_heads=2, mlp_ratio=1, patch_size=4), **QWEN_IDS),
    "qwen2_5_vl": dict(text_config=dict(SHARED, rope_parameters=MROPE, model_type="qwen2_5_vl_text"), vision_config=QWEN_VISION, **QWEN_IDS),
    "qwen3_vl": dict(text_config=dict(SHARED, head_dim=16, rope_parameters=dict(MROPE, mrope_interleaved=True), model_type="qwen3_vl_text"),
                     vision_config=dict(QWEN_VISION, num_position_embeddings=16, deepstack_visual_indexes=[0]), **QWEN_IDS),
    "smolvlm": dict(text_config=dict(SHARED, head_dim=16, model_type="llama"), vision_config=dict(SIGLIP), scale_factor=2, image_token_id=90),
    "lfm2_vl": dict(text_config=dict(SHARED, layer_types=["conv", "full_attention"], block_multiple_of=16, conv_L_cache=3, model_type="lfm2"),
                    vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_patches=16, patch_size=4,
                                       model_type="siglip2_vision_model"), image_token_id=90, projector_hidden_size=16),
    "llava": dict(text_config=dict(SHARED, head_dim=16, model_type="qwen2"), vision_config=dict(SIGLIP, model_type="siglip_vision_model"),
                  image_token_index=90, vision_feature_layer=-1),
}
torch.set_num_threads(1)


def with_names_of_its_modules(folder):
    """model.language_model.…, lm_head.…, model.vision_tower.…, model.multi_modal_projector.…: as the model's own modules are called."""
    path = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        name = name.replace("language_model.lm_head", "lm_head").replace("language_model.model.", "language_model.")
        tensors[name if name.startswith("lm_head") else "model." + name] = tensor.contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def with_fields_of_the_hub(folder):
    """Qwen2-VL's first config.json: no text_config."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    config.update({**text, **config, "rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}})
    path.write_text(json.dumps(config, indent=2))


def logits_of(folder):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").double().eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([IDS])).logits[0].float().contiguous()


def main():
    logits = {}
    for number, (name, options) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        torch.manual_seed(140 + number)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(name, **options))
        tiny.with_random_vectors(model.float().eval()).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        logits[name] = logits_of(folder)
        if name == "llava":
            with_names_of_its_modules(folder)
        if name == "qwen2_vl":
            with_fields_of_the_hub(folder)
        assert torch.equal(logits[name], logits_of(folder))
        print(name, (folder / "model.safetensors").stat().st_size, float(logits[name].std()))
    save_file({"input_ids": torch.tensor(IDS, dtype=torch.int32), **logits}, HERE / "expected.safetensors")
    oracle.write_versions(HERE)


main()
