import asyncio
from tests.contract.conftest import *
async def test_adhoc(kafka_bootstrap: str) -> None:
    async with connected(lambda: KafkaBroker(kafka_bootstrap)) as c:
        for ts in [(-5,), (-1,), (-5, 1000), (1000, -5), (1000,-1)]:
            p = await new_partition(c, {"retention.ms":"-1"})
            try:
                print(ts, await write_records(c, p, [(None,b"x",(),t) for t in ts]), [(r.timestamp) for r in await read_all(c,p)])
            except BaseException as e: print(ts, repr(e))
