"""A FastAPI application in one file: a page with parameters, a dependency and a model as its response."""

from typing import Annotated

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel


class Item(BaseModel):
    id: int
    name: str
    price: float
    tags: list[str]


class Page(BaseModel):
    title: str
    first: int
    items: list[Item]


class Range(BaseModel):
    first: int
    limit: int


ROWS = [Item(id=n, name="item %d" % n, price=n * 1.25, tags=["a", "b", "c"]) for n in range(100)]


async def asked(first: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> Range:
    return Range(first=first, limit=limit)


application = FastAPI()


@application.get("/{shelf}/items")
async def items(shelf: str, asked: Annotated[Range, Depends(asked)]) -> Page:
    return Page(title=shelf, first=asked.first, items=ROWS[asked.first : asked.first + asked.limit])
