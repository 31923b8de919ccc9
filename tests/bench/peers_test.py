#!/usr/bin/env python3
"""bench/peers: what becomes of the rounds' figures, and that Lathe's side of the comparisons says what they read.

    peers_test.py LATHE_BENCH
"""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "bench/peers"))
import tokenizer_peers  # noqa: E402
from results import Results, cells_of  # noqa: E402

LATHE_BENCH = sys.argv.pop()


class Figures(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "cpu_test.json"

    def tearDown(self):
        self.folder.cleanup()

    def results_of(self, *rounds, **more):
        results = Results(self.path)
        for lathe, peer in rounds:
            results.add("product", "a peer", "lathe-bench", [{"work": "one", "unit": "tokens/s", "lathe": lathe, "peer": peer, **more}])
        return results

    def test_the_ratio_is_the_median_of_the_rounds_ratios(self):
        # Medians 200 and 100 would say 2.
        row = self.results_of((100, 100), (200, 50), (300, 100)).document["rows"]["product: one"]
        self.assertEqual(cells_of(row), ["one", "tokens/s", "200", "100", "a peer", "3.00 (1.00 to 4.00)", "", "3"])

    def test_less_time_is_a_ratio_above_one(self):
        row = self.results_of((5, 10), less_is_better=True).document["rows"]["product: one"]
        self.assertEqual(cells_of(row)[5], "2.00")

    def test_the_share_is_of_the_highest_limit(self):
        self.results_of((90, 10), limit=90)
        row = self.results_of((90, 10), limit=100).document["rows"]["product: one"]
        self.assertEqual(cells_of(row)[6], "90 %")

    def test_disturbed_rounds_do_not_count_beside_others(self):
        results = self.results_of((100, 10), (30, 10))
        rounds = results.document["rows"]["product: one"]["rounds"]
        rounds[0]["others"] = 0.5
        self.assertEqual(cells_of(results.document["rows"]["product: one"])[5:8:2], ["3.00", "1"])
        rounds[1]["others"] = 0.3
        self.assertEqual(cells_of(results.document["rows"]["product: one"])[5:8:2], ["3.00", "1 (disturbed)"])

    def test_rounds_are_kept_from_call_to_call_until_forgotten(self):
        self.results_of((1, 1))
        results = self.results_of((2, 1))
        self.assertEqual(len(results.document["rows"]["product: one"]["rounds"]), 2)
        results.forget("another")
        self.assertEqual(len(results.document["rows"]), 1)
        results.forget("product")
        self.assertEqual(results.document["rows"], {})

    def test_the_table_has_every_row_in_the_order_of_the_comparisons(self):
        results = self.results_of((1, 1))
        results.add("first", "a peer", "lathe-model", [{"work": "two", "unit": "ms", "lathe": 1, "peer": 1}])
        results.describe(cpu="a CPU", isa="avx2", threads=2, versions={"numpy": "2"}, command="bench/peers/run")
        text = results.markdown(["first", "product"])
        self.assertLess(text.index("| two |"), text.index("| one |"))
        self.assertIn("numpy 2", text)


class Tokenizers(unittest.TestCase):
    def test_the_alphabet_of_bytes_is_complete(self):
        self.assertEqual(sorted(tokenizer_peers.bytes_of_characters().values()), list(range(256)))
        self.assertEqual(tokenizer_peers.bytes_of_characters()["Ġ"], ord(" "))

    def test_other_counts_are_an_error(self):
        tokenizer_peers.check_counts("tiktoken", {"tokens": 12}, {"ids": 10, "rows": 2})
        with self.assertRaises(SystemExit):
            tokenizer_peers.check_counts("tiktoken", {"tokens": 12}, {"ids": 11, "rows": 2})


class Programs(unittest.TestCase):
    def test_the_comparisons_are_listed(self):
        said = subprocess.run([sys.executable, TREE / "bench/peers/run", "--list"], capture_output=True, text=True, check=True).stdout
        self.assertIn("lora-bf16 ", said)

    def test_an_unknown_comparison_is_named(self):
        done = subprocess.run([sys.executable, TREE / "bench/peers/run", "--only", "lora-f33"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no comparison is called 'lora-f33'", done.stderr)

    def test_products_are_timed(self):
        for dtype in ("f32", "bf16"):
            for right in ("transposed", "plain", "packed"):
                said = subprocess.run([LATHE_BENCH, "matmul", "--sizes", "33,64", "--dtype", dtype, "--right", right, "--seconds", "0.001", "--threads", "1",
                                       "--repetitions", "1", "--json"], capture_output=True, text=True, check=True).stdout
                document = json.loads(said)
                self.assertEqual([result["size"] for result in document["results"]], [33, 64])
                for result in document["results"]:
                    self.assertAlmostEqual(result["fraction"], result["gflops"] / document["peak_gflops"])

    def test_models_are_timed_by_operation(self):
        with tempfile.TemporaryDirectory() as folder:
            for file in ("tiny_llama/untied/config.json", "tiny_llama/untied/model.safetensors", "tokenizer/byte_level/tokenizer.json"):
                shutil.copy(TREE / "tests/golden" / file, folder)
            train = [LATHE_BENCH, "train", folder, "--dtype", "f32", "--rows", "2", "--row_tokens", "6", "--steps", "2", "--lora_r", "2", "--threads", "1"]
            document = json.loads(subprocess.run([*train, "--profile", "--json"], capture_output=True, text=True, check=True).stdout)
            self.assertEqual(document["tokens_per_step"], 12)
            linear = [operation for operation in document["operations"] if operation["operation"] == "linear"][0]
            # Two steps of seven linears to a layer, forward and backward.
            layers = json.loads((Path(folder) / "config.json").read_text())["num_hidden_layers"]
            self.assertEqual((linear["forward_calls"], linear["backward_calls"]), (2 * 7 * layers, 2 * 7 * layers))
            self.assertNotIn("operations", json.loads(subprocess.run([*train, "--json"], capture_output=True, text=True, check=True).stdout))
            model = subprocess.run([LATHE_BENCH, "model", folder, "-p", "5", "-n", "0", "-r", "1", "--threads", "1", "--profile", "--json"],
                                   capture_output=True, text=True, check=True).stdout
            self.assertEqual(set(json.loads(model)["profile"]), {"pp5"})


if __name__ == "__main__":
    unittest.main()
