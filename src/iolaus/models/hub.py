"""Whether weights can be had at all: without a network the Hugging Face hub tries for a minute, in 48 lines."""

import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import torch
from timm.models import PretrainedCfg

CONNECT_SECONDS = 10.0  # for a slow network


def has_weights(cfg: PretrainedCfg) -> bool:
    """Whether the weights of a timm model are in a cache of this machine, or the place that has them answers."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if not cfg.hf_hub_id or constants.HF_HUB_OFFLINE:  # torch's hub, and an offline one, fail at once
        return True
    repo = str(cfg.hf_hub_id).partition("@")[0]
    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    old = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(str(cfg.url)).path).name
    return any(cached.glob("snapshots/*/*")) or (bool(cfg.url) and old.is_file()) or answers(constants.ENDPOINT)


def answers(url: str, seconds: float = CONNECT_SECONDS) -> bool:
    """Whether the host of a URL, or the proxy that leads to it, takes a connection within some seconds."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connected: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, port), seconds).close()
        except OSError:
            return
        connected.append(True)

    thread = threading.Thread(target=connect, daemon=True)  # a look-up of the name has no time limit of its own
    thread.start()
    thread.join(seconds)
    return bool(connected)
