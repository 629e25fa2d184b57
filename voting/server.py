"""The page on which people vote. It listens on this machine alone and asks for the token in its address."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from PIL import Image
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from core.animation import animated
from core.settings import check_name
from evaluation import images
from voting import store
from voting.session import SIDES, Pair, Session

PAGE = Path(__file__).with_name("page.html")
SHOWN = 384  # pixels of a side on the page, at least


class Vote(BaseModel):
    """What the page sends."""

    voter: str
    pair: str
    choice: str


def make_app(session: Session, folder: Path, token: str) -> FastAPI:
    """``folder`` holds the votes; every request must carry ``token``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    cast = {(vote["voter"], vote["pair"]) for vote in store.read(folder)}

    @app.middleware("http")
    async def guarded(request: Request, call_next):
        given = request.query_params.get("token", "")
        if not secrets.compare_digest(given.encode(), token.encode()):
            return Response("the address must end in the token that was printed", status_code=403)
        response = await call_next(request)
        response.headers["Cache-Control"] = "no-store"
        return response

    def known(name: str) -> str:
        try:
            return check_name(name)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None

    def pair_of(name: str) -> Pair:
        if name not in session.pairs:
            raise HTTPException(404, "no such pair")
        return session.pairs[name]

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    @app.get("/next")
    def following(voter: str) -> dict:
        voter = known(voter)
        left = [pair for pair in session.order(voter) if (voter, pair.pair) not in cast]
        progress = {"done": len(session.pairs) - len(left), "of": len(session.pairs)}
        return progress | ({"pair": left[0].pair, "prompt": left[0].text} if left else {})

    @app.get("/image/{name}/{side}")
    def image(name: str, side: str, voter: str) -> Response:
        pair = pair_of(name)
        if side not in SIDES:
            raise HTTPException(404, f"valid: {' or '.join(SIDES)}")
        content, kind = picture(pair, pair.shown(known(voter))[SIDES.index(side)])
        return Response(content, media_type=f"image/{kind}")

    @app.post("/vote")
    def vote(given: Vote) -> dict:
        voter, pair = known(given.voter), pair_of(given.pair)
        if given.choice not in store.CHOICES:
            raise HTTPException(400, f"valid choices: {', '.join(store.CHOICES)}")
        if (voter, pair.pair) not in cast:
            left, right = pair.shown(voter)
            chosen = {"left": left, "right": right}.get(given.choice, given.choice)
            store.append(folder, {"voter": voter, "pair": pair.pair, "chosen": chosen})
            cast.add((voter, pair.pair))
        return {"stored": True}

    return app


def picture(pair: Pair, which: str) -> tuple[bytes, str]:
    """The image as a PNG or the clip as a WebP, without a word about where it is from; and which it is."""
    file = pair.file(which)
    pixels = images.load(file, np.array([pair.prompt]), images.per_prompt(file))[0, pair.image]
    scale = max(1, SHOWN // pixels.shape[-3])
    shown = pixels.repeat(scale, -3).repeat(scale, -2)
    if shown.ndim == 4:
        return animated(shown, pair.frames_per_second), "webp"
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "png")
    return buffer.getvalue(), "png"


def serve(session: Session, folder: Path, port: int) -> None:
    """Print the address and serve until it is interrupted."""
    import uvicorn

    token = secrets.token_urlsafe(16)
    print(f"http://127.0.0.1:{port}/?token={token}", flush=True)
    uvicorn.run(make_app(session, folder, token), host="127.0.0.1", port=port, log_level="warning")
