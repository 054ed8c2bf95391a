"""Secrets in what a run writes: a token in a log that was shared is somebody else's token; a word that was eaten is a
sentence nobody can read.
"""

import io
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.redaction import MARK, RedactedStream, holds_known_secret, holds_secret, redact, redact_values
from simpo_workbench.config.run_config import RunConfig

ROOT = Path(__file__).parents[2]


def made_up(seed, length, alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"):
    """A random text, made when the test runs: no real-looking key stands in this file."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
HEX = "0123456789abcdef"
AWS_SECRET = made_up(8, 39) + "/"
#: What it is: (the secret, a text around it that must stay).
SECRETS = {
    "hub token": ("hf_" + made_up(1, 34), "token {} was refused"),
    "hub organisation token": ("api_org_" + made_up(2, 34), "with {}."),
    "OpenAI key": ("sk-" + made_up(3, 48), "OPENAI_API_KEY is {}"),
    "OpenAI project key": ("sk-proj-" + made_up(4, 20) + "_" + made_up(5, 20) + "-" + made_up(6, 8), "({})"),
    "Anthropic key": ("sk-ant-api03-" + made_up(7, 40) + "-" + made_up(8, 10) + "AA", "x={};"),
    "short lower-case key": ("sk-" + made_up(9, 32, "abcdefghijklmnopqrstuvwxyz"), "'{}'"),
    "AWS access key id": ("AKIA" + made_up(10, 16, UPPER), "id {}, region eu-west-1"),
    "AWS temporary key id": ("ASIA" + made_up(11, 16, UPPER), '"AccessKeyId": "{}"'),
    "AWS secret in a file": (AWS_SECRET, "aws_secret_access_key = {}"),
    "AWS secret in JSON": (AWS_SECRET, '{{"SecretAccessKey": "{}"}}'),
    "AWS secret in a shell": (AWS_SECRET, "export AWS_SECRET_ACCESS_KEY={}"),
    "GitHub token": ("ghp_" + made_up(12, 36), "https://api.github.com with {}"),
    "GitHub OAuth token": ("gho_" + made_up(13, 36), "{}"),
    "GitHub server token": ("ghs_" + made_up(14, 36), "[{}]"),
    "GitHub fine-grained token": ("github_pat_" + made_up(15, 22) + "_" + made_up(16, 59), "{} expired"),
    "GitLab token": ("glpat-" + made_up(17, 20), "{}"),
    "Slack token": ("xoxb-" + made_up(18, 12, "0123456789") + "-" + made_up(19, 24), "{}"),
    "Google key": ("AIza" + made_up(20, 35), "?key={}&x=1"),
    "bearer": (made_up(21, 40), "Authorization: Bearer {}"),
    "bearer alone": (made_up(22, 40), "curl -H 'bearer {}'"),
    "basic": ("dXNlcjpw" + made_up(23, 8) + "==", '"Authorization": "Basic {}"'),
    "JSON web token": (f"eyJ{made_up(24, 30)}.eyJ{made_up(25, 60)}.{made_up(26, 43)}", "session {}"),
    "password in an address": ("me:" + made_up(27, 8), "https://{}@example.org/data.jsonl"),
    "password with an at sign": ("me:pa@ss" + made_up(28, 4), "postgresql://{}@db:5432/x"),
    "token in an address": (made_up(29, 30) + "7a", "git clone https://{}@git.example.org/x.git"),
    "token in a query": (made_up(30, 32, HEX), "https://example.org/a.jsonl?access_token={}&page=2"),
    "signed address": (made_up(31, 64, HEX), "https://s3/x?X-Amz-Signature={}&X-Amz-Date=20260101T000000Z"),
    "api key in YAML": (made_up(32, 40, HEX), "wandb_api_key: {}"),
    "client secret": (made_up(33, 32), "client_secret='{}'"),
    "password in YAML": ("hunter2", "password: {}"),
    "password in a traceback": ("Tr0ub4dor&3"[:9], "connect(user='me', password='{}')"),
    "key in escaped JSON": (made_up(34, 40, HEX), '{{\\"api_key\\": \\"{}\\"}}'),
    "W&B key": ("wandb_v1_" + made_up(50, 27) + "_" + made_up(51, 48), "WANDB_API_KEY is {}"),
    "W&B login": (made_up(52, 40, HEX), "$ wandb login {}"),
    "W&B login again": (made_up(53, 40, HEX), "wandb login --relogin {}"),
    "Groq key": ("gsk_" + made_up(54, 52), "Groq(api_key='{}')"),
    "xAI key": ("xai-" + made_up(55, 80), "{} for Grok"),
    "Replicate token": ("r8_" + made_up(56, 37), "REPLICATE_API_TOKEN is {}"),
    "Databricks token": ("dapi" + made_up(57, 32, HEX), "host, {}"),
    "Databricks token with a number": ("dapi" + made_up(58, 32, HEX) + "-2", "{} of a workspace"),
    "Google client secret": ("GOCSPX-" + made_up(59, 28), '"client": "{}"'),
    "Google access token": ("ya29." + made_up(60, 60), "{} expired"),
    "Google key for agents": ("AQ.Ab8" + made_up(61, 45), "?key={}"),
    "SendGrid key": ("SG." + made_up(62, 22) + "." + made_up(63, 43), "({})"),
    "Slack app token": (
        "xapp-1-A" + made_up(64, 10, UPPER) + "-" + made_up(65, 13, "0123456789") + "-" + made_up(66, 64, HEX),
        "{}",
    ),
    "Slack hook": (
        "T" + made_up(67, 8, UPPER) + "/B" + made_up(68, 8, UPPER) + "/" + made_up(69, 24),
        "https://hooks.slack.com/services/{}",
    ),
    "Discord hook": (made_up(70, 68), "https://discord.com/api/webhooks/123456789012345678/{}"),
    "Discord token": ("MTIz" + made_up(71, 20) + "." + made_up(72, 6) + "." + made_up(73, 38), "bot {}"),
    "Telegram token": ("1234567890:AA" + made_up(74, 33), "bot {} is mine"),
    "ModelScope token": (
        "ms-" + "-".join(made_up(75 + n, size, HEX) for n, size in enumerate((8, 4, 4, 4, 12))),
        "{} .",
    ),
    "Zhipu key": (made_up(80, 32, HEX) + "." + "a1" + made_up(81, 14), "glm: {}"),
    "NVIDIA key": ("nvapi-" + made_up(82, 64), "{}"),
    "Perplexity key": ("pplx-" + made_up(83, 48), "{}"),
    "Cerebras key": ("csk-" + made_up(84, 48, "abcdefghijkmnpqrtvwxy23456789"), "{}"),
    "Fireworks key": ("fw_3" + made_up(85, 21), "{}"),
    "Together key": ("tgp_v1_" + made_up(86, 43), "{}"),
    "Pinecone key": ("pcsk_" + made_up(87, 6) + "_" + made_up(88, 63), "{}"),
    "LangSmith key": ("lsv2_pt_" + made_up(89, 32, HEX) + "_" + made_up(90, 10, HEX), "{}"),
    "Kaggle token": ("KGAT_" + made_up(91, 32, HEX), "{}"),
    "Docker token": ("dckr_pat_" + made_up(92, 27), "{}"),
    "hub OAuth token": ("hf_oauth_" + made_up(93, 60), "{}"),
    "option with a key": (made_up(94, 40), "python judge.py --api-key {} --n 3"),
    "option with a token": (made_up(95, 40), "curl-like --hf-token={} --revision main"),
    "option with a password": ("hunter2", "connect --password {} --user me"),
    "option in a list": (made_up(96, 40), "subprocess: ['vllm', '--api-key', '{}', '--port', '80']"),
    "user and password of curl": ("Tr0ub4dor", "curl -s -u me:{} https://example.org/x"),
    "docker login": ("Tr0ub4dor", "docker login -u me -p {} registry.example.org"),
    "AWS session": (made_up(97, 200) + "/" + made_up(98, 99) + "==", "aws_session_token={}"),
    "Azure account": (made_up(99, 40) + "/" + made_up(120, 45) + "==", "AccountName=x;AccountKey={};EndpointSuffix=y"),
    "a key of any service": (made_up(121, 32, HEX), "AZURE_OPENAI_KEY={}"),
    "netrc": (made_up(122, 40, HEX), "machine api.wandb.ai\n  login user\n  password {}\n"),
    "netrc in a line": (made_up(123, 40, HEX), "machine api.wandb.ai login user password {}"),
    "ngrok": ("2" + made_up(124, 26) + "_" + made_up(125, 21), "ngrok authtoken {}"),
    "ngrok configuration": ("2" + made_up(126, 26) + "_" + made_up(127, 21), "ngrok config add-authtoken {}"),
    "cookie": (made_up(128, 40), "Cookie: lang=en; session={}; x=1"),
    "mysql": ("S3cretPw99", "mysql -u root -p{} db"),
    "private key": (
        f"-----BEGIN RSA PRIVATE KEY-----\n{made_up(35, 64)}\n{made_up(36, 64)}\n-----END RSA PRIVATE KEY-----",
        "before\n{}\nafter",
    ),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_goes_and_what_stands_around_it_stays(kind):
    """Whoever shares a run folder would share the account behind the token."""
    secret, around = SECRETS[kind]
    cleaned = redact(around.format(secret))
    assert secret not in cleaned
    assert not any(secret[start : start + 8] in cleaned for start in range(4, max(5, len(secret) - 8))), (
        "a part of it is left"
    )
    before, _, after = around.partition("{}")
    assert cleaned.startswith(before.replace("{{", "{"))
    assert cleaned.endswith(after.replace("}}", "}"))
    assert cleaned.count(MARK) == 1
    assert redact(cleaned) == cleaned


WORDS = """
sk-learn
pip install sk-learn-intelex-extension-for-python
ask-me-anything, task-oriented-dialogue, risk-averse-reinforcement-learning, disk-space-2024-report
sk-lookup of a sk-SK locale
hf_hub, hf_hub_download, hf_transfer, hf_xet, hf_token
from huggingface_hub import hf_hub_download
HF_TOKEN is not set
set HF_TOKEN or log in with `hf auth login`
the ghp_ prefix of GitHub tokens, gho_ and github_pat_
Bearer of bad news
bearer of misunderstandings and of counterrevolutionaries
The bearer shall be admitted.
user@example.com
Write to first.last+tag@sub.example.org, please
git@github.com:owner/name.git
ssh://git@github.com/owner/name.git
https://example.com:8080/path?q=1#top
https://example.com/@user/posts/1234567890
https://huggingface.co/Qwen/Qwen3-0.6B/resolve/main/model.safetensors
see http://localhost:8888, then mail me@example.org
file:///home/someone/data/train-00001-of-00010.jsonl
/home/someone/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de289a04d12100db370d81485cdf75e47ca
C:\\Users\\someone\\runs\\plain-answers-1122-1812
runs/plain-answers-1122-1812/checkpoints/step-000050/adapter/adapter_model.safetensors
bc5ad8813fa0c2c9d1d4e5f60718293a4b5c6d7e
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
config_sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
"train_pairs_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
pair_id: 0123456789abcdef
pair 9f86d081884c7d65 is longer than data.max_tokens 1024
Qwen/Qwen3-0.6B
HuggingFaceTB/SmolLM2-135M-Instruct
meta-llama/Meta-Llama-3.1-8B-Instruct
mistralai/Mixtral-8x7B-Instruct-v0.1
model.name = demo
eos_token: <|im_end|>
pad_token = <|finetune_right_pad_id|>
bos_token: "<s>", unk_token: "<unk>"
eos_token: end_of_text_0123456789ab
max_tokens: 1024
data.max_tokens = 2048
max_new_tokens=64, tokens_per_second=1234.5
tokens: 15,234,567,890,123
token 12 of 40: ' Paris' (id 6342)
token: Ġcounterrevolutionaries
tokenizer: PreTrainedTokenizerFast
tokenizers 0.22.1, transformers 5.23.0
the token budget is 128000 tokens
secret: none
The secret of a good answer is brevity.
It is no secret: readability-counts-and-explicit-is-better
password: see the wiki
Password must not be empty
The password is required.
passwordless login
api_key: null
api_key: ${OPENAI_API_KEY}
api_key = os.environ["OPENAI_API_KEY"]
access_key: <your key here>
An API key is needed; set OPENAI_API_KEY.
private_key: ./keys/id_rsa.pub
secret_key: /run/secrets/django
client_secret: (from the vault)
authorization: required
Authorization is by token.
AKIA is how they begin
ASIAN CUISINE IN TWENTY CITIES
ASIA-PACIFIC-2024
AKIAIOSFODNN
eyJ is what JSON web tokens begin with
-----BEGIN CERTIFICATE-----
-----BEGIN PUBLIC KEY-----
step-000050.parquet
loss 0.6931, margin +0.012, learning_rate 1.2e-4
loss.beta = 2.0 and loss.gamma_beta_ratio = 0.5
{"kind": "train", "step": 12, "loss": 0.5, "logps/chosen": -1.25, "time": 1763836800.123}
{"state": "training", "process": {"boot": "5f0c3a9e-7d53-4a8e-9a53-0a3e6f7d8c11", "pid": 4711, "start": 123456}}
Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1773, in _wrapped_call_impl
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x32 and 64x32)
NVIDIA H100 80GB HBM3
GPU-5f0c3a9e-7d53-4a8e-9a53-0a3e6f7d8c11
2026-11-22T18:12:00.000000+00:00
0x7f3a5c0012f0
iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk
bdata: AAAAAAAA8D8AAAAAAAAAQAAAAAAAAAhA
c29tZSBiYXNlNjQgdGV4dCB0aGF0IGlzIG5vIHNlY3JldA==
SGVsbG8sIHdvcmxkISBIZWxsbywgd29ybGQh
aGVsbG8gd29ybGQgMTIzNDU2Nzg5MA
α β γ/β, ε and σ(γ − margin)
Ich weiß es nicht. 我不知道。 わかりません。
What is the capital of France? Paris.
How do I get a wine stain out of a shirt?
Use `ssh-keygen -t ed25519` and keep the private key to yourself.
Set the token with `export HF_TOKEN=...` and restart.
HF_TOKEN=$HF_TOKEN python train.py
HF_TOKEN=your_token_here
OPENAI_API_KEY=<your-api-key>
OPENAI_API_KEY=sk-...
hf_...
sk-ant-...
sk-ant-colony-optimization
ghp_xxxxxxxx
Bearer <token>
Bearer $TOKEN
Authorization: Bearer
AWS_REGION=eu-central-1
AWS_PROFILE=default
s3://bucket/prefix/train.jsonl.gz
gs://bucket/owner:name/file.parquet
redis://localhost:6379/0
jdbc:postgresql://db.example.org:5432/pairs
mailto:someone@example.org
ftp://ftp.example.org/pub/README
10.0.0.1:8080
[::1]:8888
npm_config_cache=/tmp/npm
xoxo, and see you soon
pypi-AgE is a prefix
AIza is one as well
rk_live and sk_test are prefixes
glpat- alone
key: value
keys: chosen, rejected, prompt
signature: def simpo_loss(chosen_avg_logps, rejected_avg_logps)
sig = inspect.signature(function_number_12)
?page=2&sort=asc&signature_style=short
public_key_2048_bits
monkey: banana0123456789abcdef
turkey=roast
access: read-only
nonce 4fzzzxjylrx
wandb login
wandb login --relogin, then wandb sync runs/one
the gsk_ prefix of Groq, xai- of xAI and r8_ of Replicate
xai-org/grok-2
xai-explainable-artificial-intelligence-for-everybody-2024
r8_k and r9_k are registers
dapiprefix, dapi12 and other names
SG.x.y and SG.com, 12 SG. to go
12345678:AA at the end
at 12:30 (GMT+08:00), ratio 16:9, 1234567890:Amount
ms-marco-MiniLM-L-6-v2, ms-swift 3.9, ms-vscode
ms-0000
fw_parameters_of_the_firewall, fw_update
nvapi- and nvidia-smi
MNIST.digits.classification
key-value pairs, key-frames
SKU 4711, SK8, SKIP
docker run -u 1000:1000 -p 8888:8888 image
docker login registry.example.org
curl -L -o data.jsonl https://example.org/data.jsonl
curl -u user:$PASSWORD https://example.org
git ftp -u anonymous ftp://username:password@ftp.example.com/Repository
ftp://user:pass@host/path, postgresql://login:secret@localhost/db
simpo-workbench train --model.name Qwen/Qwen3-0.6B --data.train pairs.jsonl
--max-tokens 1024 --tokenizer Qwen/Qwen3-0.6B-Base-2025 --token-classification
--api-key <your key> --token $HF_TOKEN --password ****
--num-tokens 1000000000000000 --secret-santa 2024
vllm serve --api-key EMPTY
the --password option; the --token option is deprecated
{"authorization": "Bearer hf_***", "user-agent": ""}
password = base64.b16encode(random_bytes[8:])
hooks.slack.com is where messages go
d41d8cd98f00b204e9800998ecf8427e.safetensors
hash_token:0123456789abcdef0123456789abcdef
Basic authorization: basic principles of2
authorization: bearer instruments, in 2024
PRIMARY_KEY=customer0123456789
PUBLIC_KEY: 0123456789abcdef0123456789
login page: password reset
login user password at least 8 characters
mysql -u root -p -P 3306
ngrok authtoken is asked for
Cookie: theme=dark; session=none
Cookies and sessions: session=expired
token: data/plain_answers/train-00001-of-00010.jsonl
d41d8cd98f00b204e9800998ecf8427e.json
1234567890123456789012345678901234567890
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
""".strip().splitlines()
#: Numbers, steps, ids and hashes as a run writes them, so that two hundred lines and more are tried.
GENERATED = [
    *(f"step {n}: loss {0.7 - n / 200:.4f}, {n * 131} tokens, pair {made_up(n, 16, HEX)}" for n in range(30)),
    *(f"{made_up(100 + n, 64, HEX)}  checkpoints/step-{n:06d}/adapter/adapter_model.safetensors" for n in range(20)),
    *(f"commit {made_up(200 + n, 40, HEX)} (tag: v0.{n}.1)" for n in range(10)),
    *(f"models--owner--name-{n}B/blobs/{made_up(300 + n, 64, HEX)}" for n in range(10)),
]
HARMLESS = [*WORDS, *GENERATED]


def test_two_hundred_harmless_lines_pass_unchanged():
    """A log with holes in it cannot be read, and a configuration that is refused for a word cannot be trained."""
    assert len(set(HARMLESS)) >= 230
    assert {line: redact(line) for line in HARMLESS if redact(line) != line} == {}
    assert redact("\n".join(HARMLESS)) == "\n".join(HARMLESS)


NAMED = {kind for kind in SECRETS if "bearer" in kind or kind.startswith(("option", "AWS secret", "W&B login"))} | {
    *("basic", "token in a query", "signed address", "api key in YAML", "client secret", "password in YAML"),
    *("password in a traceback", "key in escaped JSON", "user and password of curl", "docker login"),
    *("AWS session", "Azure account", "a key of any service", "netrc", "netrc in a line", "ngrok"),
    *("ngrok configuration", "cookie", "mysql"),
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_with_a_form_of_its_own_is_found_in_data_quickly(kind):
    """Data are searched by fixed pieces first: a form without its piece would never be found."""
    secret, around = SECRETS[kind]
    assert holds_known_secret(around.format(secret)) == (kind not in NAMED | {"Discord token", "Zhipu key"})


def test_harmless_lines_are_no_secrets_in_data_either():
    assert [line for line in HARMLESS if holds_known_secret(line)] == []


def test_many_secrets_in_one_text_all_go():
    """One that is found must not hide the next."""
    text = "\n".join(around.format(secret) for secret, around in SECRETS.values())
    cleaned = redact(text)
    assert [kind for kind, (secret, _) in SECRETS.items() if secret in cleaned] == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="hfsk_-ABab01 :=@/\"'.\\\n[]redactbearertokenapi", max_size=120))
@example("https://" + "hf_" + "a1" * 16 + ":pw@host")
def test_redacting_twice_is_redacting_once(text):
    """A status is written again and again from what was read; marks must not pile up."""
    assert redact(redact(text)) == redact(text)
    assert holds_secret(text) == (redact(text) != text)


@pytest.mark.parametrize(
    "piece",
    [
        "hf_",
        "sk-",
        "sk-a1",
        "://",
        "://a:",
        "token=",
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "password: ",
        "a",
        " ",
        '\\"',
        "[redacted]",
        "curl -u ",
        "--token ",
        "--a-",
        "wandb login ",
        "docker login -p",
        "ms-0a",
        "12345678:AA",
        "hooks.slack.com/services/",
    ],
)
def test_no_text_takes_longer_than_its_length_asks_for(piece):
    """A line that a model wrote must not stop the process that logs it; where time grew with the square of the length
    this would not come back.
    """
    assert isinstance(redact(piece * (400_000 // len(piece))), str)


def test_nested_values_are_cleaned_and_everything_else_is_as_it_was():
    """environment.json and status.json hold lists and dicts, and numbers that must stay numbers."""
    secret = SECRETS["hub token"][0]
    value = {
        "state": "failed",
        "step": 3,
        "loss": 0.5,
        "message": f"refused: {secret}",
        "notes": [f"a {secret}", None, True],
        "at": {"secret": 1},
    }
    cleaned = redact_values(value)
    assert secret not in str(cleaned)
    assert cleaned == {**value, "message": f"refused: {MARK}", "notes": [f"a {MARK}", None, True]}


# --- a process that prints


def test_what_is_printed_is_cleaned_line_by_line():
    """A token that is written in two halves is still one token; a bar that redraws its line must be seen while it
    does.
    """
    secret = SECRETS["hub token"][0]
    below = io.StringIO()
    stream = RedactedStream(below)
    stream.write(f"with {secret[:9]}")
    assert below.getvalue() == ""
    stream.write(f"{secret[9:]} tried\nand ")
    assert below.getvalue() == f"with {MARK} tried\n"
    stream.flush()
    assert below.getvalue() == f"with {MARK} tried\nand "
    stream.write("50 %\r")
    assert below.getvalue().endswith("50 %\r")
    stream.writelines(["a\n", "b\n"])
    stream.write("x" * 70_000)  # a line without end is not kept for ever
    assert below.getvalue().endswith("a\nb\n" + "x" * 70_000)
    assert (stream.isatty(), stream.closed) == (False, False)


def test_a_process_that_fails_tells_why_without_its_token():
    """The traceback in log.txt is the first thing that is sent to whoever helps."""
    secret = SECRETS["hub token"][0]
    code = (
        "import os, sys\n"
        "from simpo_workbench.base.redaction import redact_output\n"
        "redact_output()\n"
        "print('using', os.environ['SECRET'], file=sys.stderr)\n"
        "print('half a line ' + os.environ['SECRET'], end='')\n"
        "raise ValueError('bad token ' + os.environ['SECRET'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"SECRET": secret, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1
    assert secret not in done.stdout + done.stderr
    assert f"ValueError: bad token {MARK}" in done.stderr
    assert done.stdout == f"half a line {MARK}"


# --- where it is used


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.train", f"https://me:{made_up(40, 12)}@example.org/pairs.jsonl"),
        ("data.system_prompt", f"Use the key {SECRETS['OpenAI key'][0]} to answer."),
        ("model.name", f"https://huggingface.co/me/x?token={SECRETS['hub token'][0]}"),
        ("generation.prompts", ["Hello", SECRETS["Anthropic key"][0]]),
        ("data.template_options", {"key": {"deep": [SECRETS["AWS access key id"][0]]}}),
        ("data.template_options", {"api_key": made_up(41, 40, HEX)}),
        ("data.columns", {"prompt": SECRETS["GitHub token"][0]}),
    ],
)
def test_a_configuration_with_a_secret_is_refused_by_field_and_the_secret_not_repeated(path, value):
    """config.yaml lies in the run folder and in the report; trained with a mark in its place it would be another
    configuration.
    """
    section, _, name = path.partition(".")
    with pytest.raises(WorkbenchError) as error:
        RunConfig.from_dict({section: {name: value}})
    text = str(error.value)
    assert text.startswith(f"{path} holds what looks like a token, key or password")
    assert "\n" not in text
    assert not any(secret[4:14] in text for secret, _ in SECRETS.values())


def test_a_refused_value_is_shown_without_the_secret_in_it():
    """The sentence of an error is printed, logged and shared like everything else."""
    secret = SECRETS["hub token"][0]
    with pytest.raises(WorkbenchError) as error:
        RunConfig.from_dict({"loss": {"beta": secret}})
    assert secret not in str(error.value)
    assert f"loss.beta = '{MARK}' is not possible" in str(error.value)


def test_ordinary_configurations_are_not_refused():
    """Every preset and every harmless line as a system prompt must train."""
    from simpo_workbench.config.presets import list_presets, preset

    for name in list_presets().index:
        assert preset(name)
    for line in HARMLESS:
        assert RunConfig.from_dict({"data": {"system_prompt": line}}).data.system_prompt == line


def test_no_file_that_a_run_writes_about_itself_holds_a_secret(tmp_path):
    """The whole folder is what people attach to an issue; only the pairs and answers, which are the user's own data,
    stay as they are.
    """
    import shutil

    import fake_run

    from simpo_workbench.engine.recorder import Recorder
    from simpo_workbench.report.report import report_html
    from simpo_workbench.runs.folder import RunFolder
    from simpo_workbench.runs.presence import Presence
    from simpo_workbench.runs.run import Run

    secret, other = SECRETS["hub token"][0], SECRETS["password in an address"][0]
    made = fake_run.fake_run(tmp_path, texts=(f"Is {secret} right?", "Yes.", "No."))
    run = Run(RunFolder(shutil.copytree(made.path, tmp_path / "copy", ignore=shutil.ignore_patterns("lock"))))
    with Presence(run.folder, "in-process") as presence:
        told = []
        recorder = Recorder(run.folder, run.config, presence, told.append)
        recorder.note(f"Refused rows: {secret}")
        recorder.event(120, "resumed", f"Went on from https://{other}@example.org.")
        run.folder.mailbox.ask("save")
        presence.inbox.refuse(presence.inbox.take()[0], f"The hub refused {secret}.")
        recorder.state("failed", f"OSError: 401 with {secret}")
    written = {
        path.name: path.read_text(errors="replace")
        for path in run.path.rglob("*")
        if path.is_file() and path.suffix in (".json", ".jsonl", ".txt", ".yaml")
    }
    written["report.html"] = report_html(Run(run.folder))
    assert [name for name, text in written.items() if secret in text or other in text] == []
    assert {name for name, text in written.items() if MARK in text} >= {
        "status.json",
        "metrics.jsonl",
        "log.txt",
        "report.html",
    }
    assert not any(secret in str(record) for record in told)
