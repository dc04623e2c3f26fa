"""The gateway as it is usually written: FastAPI's UploadFile, boto3, aiokafka; the rival of `sfumato bench accept`.

Written plainly and without mistakes: one S3 client with a pool large enough, calls to it on the thread pool as FastAPI
does it, one producer with acks=all. It checks nothing of the picture, signs no link and counts nothing.
"""

import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import boto3
import uvicorn
from aiokafka import AIOKafkaProducer
from botocore.config import Config
from fastapi import FastAPI, Request, UploadFile
from fastapi.concurrency import run_in_threadpool

__all__ = ["create_app", "main"]

REGION = "us-east-1"
CONNECTIONS = 64


def create_app(kafka: str, topic: str, s3: str, bucket: str, key_id: str, secret: str) -> FastAPI:
    """The app over these servers."""
    store = boto3.client(
        "s3",
        endpoint_url=s3,
        region_name=REGION,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(max_pool_connections=CONNECTIONS, s3={"addressing_style": "path"}),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
        await producer.start()
        yield {"producer": producer}
        await producer.stop()

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/diffusion", status_code=202)
    async def diffusion(
        request: Request, image: UploadFile, model_name: str, prompt: str = "", priority: str = "normal"
    ) -> dict[str, str]:
        job_id = str(uuid.uuid4())
        data = await image.read()
        await run_in_threadpool(store.put_object, Bucket=bucket, Key=f"inputs/{job_id}", Body=data)
        message = {"id": job_id, "model": model_name, "prompt": prompt, "priority": priority}
        await request.state.producer.send_and_wait(topic, json.dumps(message).encode(), key=job_id.encode())
        return {"id": job_id, "status": "queued", "result_url": f"{request.base_url}api/jobs/{job_id}/result"}

    return app


def main(port: int, *servers: str) -> None:
    """Serve on this port of loopback; `servers` are `create_app`'s arguments."""
    uvicorn.run(create_app(*servers), host="127.0.0.1", port=port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
