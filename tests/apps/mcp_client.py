"""Client for mcp_app.py, using the package mcp: mcp_client.py URL

It speaks both generations of the protocol: with a session, whose stream of server-sent events stays open, and without.
"""

import asyncio
import sys

from mcp import Client
from mcp.client.subscriptions import ResourceUpdated, SubscriptionLost
from mcp_types import ElicitResult

url = sys.argv[1] + "/mcp"


async def calls(client):
    tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == {"add", "word", "count", "confirm", "touch", "fails"}, tools
    sums = await asyncio.gather(*(client.call_tool("add", {"a": number, "b": 1}) for number in range(20)))
    assert [result.structured_content["result"] for result in sums] == list(range(1, 21))
    assert (await client.call_tool("word")).content[0].text == "from the lifespan"
    steps = []

    async def progress(step, total, message):
        steps.append((step, total))

    counted = await client.call_tool("count", {"until": 30}, progress_callback=progress)
    assert counted.content[0].text == "counted"
    assert steps == [(number + 1, 30) for number in range(30)], steps
    assert (await client.call_tool("fails")).is_error
    read = await client.read_resource("greeting://" + "x" * 1000)
    assert read.contents[0].text == "Hello, " + "x" * 1000


async def confirms(context, params):
    return ElicitResult(action="accept", content={"yes": params.message == "well?"})


async def with_a_session():
    async with Client(url, mode="legacy", elicitation_callback=confirms) as client:
        await calls(client)
        assert (await client.call_tool("confirm", {"question": "well?"})).content[0].text == "accept: True"


async def without_a_session():
    async with Client(url) as client:
        assert client.protocol_version >= "2026-07-28", client.protocol_version
        await calls(client)
        try:
            async with client.listen(resource_subscriptions=["greeting://me"]) as events:
                await client.call_tool("touch", {"name": "me"})
                assert await anext(aiter(events)) == ResourceUpdated("greeting://me")
                print("reload", flush=True)
                async for event in events:
                    raise SystemExit("unexpected: %r" % event)
        except SubscriptionLost:
            pass
        await calls(client)


async def main():
    await with_a_session()
    await without_a_session()


asyncio.run(asyncio.wait_for(main(), 40))
print("well")
