# asyncpg: everything is prepared and binary.
import asyncio
import io
import sys

import asyncpg


async def main(url):
    conn = await asyncpg.connect(url)
    sql = "SELECT name, ssn, credit_card, note FROM customers WHERE id = $1"
    statement = await conn.prepare(sql)
    for _ in range(2):
        assert tuple(await statement.fetchrow(1)) == ("Ada Lovelace", "***-**-6789", "[CARD]", "prefers tea")
    assert (await conn.fetchrow(sql, 3))["note"] is None
    row = await conn.fetchrow("SELECT $1::int[], $2::text, $3::text", [1, 2], "žluťoučký 🐎", None)
    assert tuple(row) == ([1, 2], "žluťoučký 🐎", None), row
    try:
        async with conn.transaction():
            await conn.execute("INSERT INTO orders (id, customer) VALUES ($1, 1)", 500)
            await conn.fetch("SELECT 1 / $1::int", 0)
    except asyncpg.DivisionByZeroError:
        pass
    else:
        raise AssertionError("the server's error did not arrive")
    assert await conn.fetchval("SELECT count(*) FROM orders") == 30
    async with conn.transaction():
        names = [row["ssn"] async for row in conn.cursor("SELECT ssn FROM customers ORDER BY id", prefetch=1)]
    assert names == ["***-**-6789", "***-**-5462", "***-**-9041"], names
    out = io.BytesIO()
    await conn.copy_from_table("orders", output=out)
    assert out.getvalue().count(b"\n") == 30
    await conn.executemany("INSERT INTO orders (id, customer) VALUES ($1, $2)", [(700, 1), (701, 2)])
    try:
        await conn.execute("DROP TABLE orders")
    except asyncpg.InsufficientPrivilegeError:
        pass
    else:
        raise AssertionError("DROP passed")
    assert await conn.fetchval("SELECT count(*) FROM orders") == 32
    await conn.close()


asyncio.run(main(sys.argv[1]))
print("done")
