// node-postgres: simple, parameterised and named prepared queries.
const assert = require("assert");
const { Client } = require("pg");

async function main(url) {
    const client = new Client({ connectionString: url });
    await client.connect();
    const sql = "SELECT name, ssn, credit_card, note FROM customers WHERE id = $1";
    for (const name of [undefined, "one", "one"]) {
        const row = (await client.query({ name, text: sql, values: [1] })).rows[0];
        assert.deepStrictEqual({ ...row }, {
            name: "Ada Lovelace", ssn: "***-**-6789", credit_card: "[CARD]", note: "prefers tea",
        });
    }
    assert.strictEqual((await client.query(sql, [3])).rows[0].note, null);
    const echoed = (await client.query("SELECT $1::int[] AS a, $2::text AS t", [[1, 2], "žluťoučký 🐎"])).rows[0];
    assert.deepStrictEqual({ ...echoed }, { a: [1, 2], t: "žluťoučký 🐎" });
    await client.query("BEGIN");
    await client.query("INSERT INTO orders (id, customer) VALUES ($1, 1)", [500]);
    await assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
    await client.query("ROLLBACK");
    await assert.rejects(client.query("DROP TABLE orders"), { code: "42501" });
    assert.strictEqual((await client.query("SELECT count(*) FROM orders")).rows[0].count, "30");
    await client.end();
}

main(process.argv[2]).then(() => console.log("done"));
