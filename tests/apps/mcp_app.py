"""An MCP server over streamable HTTP. What it sees is printed to standard error."""

import contextlib
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.asynccontextmanager
async def lifespan(server):
    yield {"word": "from the lifespan"}
    say("lifespan ended")


mcp = MCPServer("calculator", lifespan=lifespan)


class Confirmation(BaseModel):
    yes: bool


@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@mcp.tool()
async def word(ctx: Context) -> str:
    """Return what the lifespan has left."""
    return ctx.request_context.lifespan_context["word"]


@mcp.tool()
async def count(until: int, ctx: Context) -> str:
    """Count, with a report of each step."""
    for number in range(until):
        await ctx.report_progress(number + 1, until)
    return "counted"


@mcp.tool()
async def confirm(question: str, ctx: Context) -> str:
    """Ask the user, by a request of the server to the client, while the call waits."""
    answer = await ctx.elicit(question, Confirmation)
    return "%s: %s" % (answer.action, answer.data.yes)


@mcp.tool()
async def touch(name: str, ctx: Context) -> None:
    """Notify the subscribers of a resource."""
    await ctx.notify_resource_updated("greeting://" + name)


@mcp.tool()
def fails() -> None:
    """Refuse the call."""
    raise ToolError("asked for")


@mcp.resource("greeting://{name}")
def greeting(name: str) -> str:
    """Greet someone."""
    return "Hello, " + name


#: The host of a server on another address than 127.0.0.1: otherwise only that one is accepted as the Host of a request.
app = mcp.streamable_http_app(host="0.0.0.0")
