"""Where the daemon is, and who asks: arguments win over the environment, that over the file that ovrctl reads too."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from .errors import OvrdError

DEFAULT_URL = "http://127.0.0.1:8080"
PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Config:
    url: str
    token: Optional[str]
    ca_file: Optional[str]


def directory() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path("~/.config").expanduser()) / "ovrd"


def _read_settings(path: Path) -> dict[str, str]:
    """Lines of `key = value`; # begins a comment line."""
    settings: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return settings
    except OSError as error:
        raise OvrdError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        key, equals, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key.strip():
            raise OvrdError(f"{path}, line {number}: must be key = value, got {line.strip()!r}")
        settings[key.strip()] = value.strip()
    return settings


def _read_token(path: PathLike) -> str:
    path = Path(path).expanduser()
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise OvrdError(f"others can read {path}; chmod 600 it, and if somebody may have, revoke the token")
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OvrdError(f"cannot read the token in {path}: {error.strerror}") from error
    if not token:
        raise OvrdError(f"the token file {path} is empty")
    return token


def load(url: Optional[str], token: Optional[str], token_file: Optional[PathLike],
         ca_file: Optional[PathLike]) -> Config:
    settings = _read_settings(directory() / "config")
    environment = os.environ.get
    if token is None and token_file is None:
        token = environment("OVRD_TOKEN") or None
    if token is None:
        token_file = token_file or environment("OVRD_TOKEN_FILE") or settings.get("token-file")
        if not token_file and (directory() / "token").exists():
            token_file = directory() / "token"
        token = _read_token(token_file) if token_file else None
    ca = ca_file or environment("OVRD_CA_FILE") or settings.get("ca-file")
    return Config(url or environment("OVRD_URL") or settings.get("host") or DEFAULT_URL, token,
                  os.path.expanduser(ca) if ca else None)
