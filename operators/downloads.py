"""Files of a result handed to the browser, which may run on another machine than the server."""

import base64
from pathlib import Path

# More than this is not sent through the App; the file is on the server in any case.
MAX_BYTES = 20 << 20

_TYPES = {".csv": "text/csv", ".json": "application/json", ".md": "text/markdown"}


def download(ctx, path):
    """Messages that save a file in the browser, or say where it is if it is too large for that."""
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        yield ctx.ops.notify(f"The file is too large to download here; it is in {path}", variant="warning")
        return
    url = f"data:{_TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
    yield ctx.ops.browser_download(url, filename=path.name)
