# psycopg 3: text and binary, prepared, transactions, pipeline mode, COPY.
import sys
import psycopg

with psycopg.connect(sys.argv[1], autocommit=True) as conn:
    sql = "SELECT name, ssn, credit_card, note FROM customers WHERE id = %s"
    for prepare in (False, True, True):
        for binary in (False, True):
            row = conn.cursor(binary=binary).execute(sql, (1,), prepare=prepare).fetchone()
            assert row == ("Ada Lovelace", "***-**-6789", "[CARD]", "prefers tea"), row
    assert conn.execute(sql, (3,)).fetchone()[3] is None
    row = conn.execute("SELECT %s::int[], %s::text, %s::text", ([1, 2], "žluťoučký 🐎", None)).fetchone()
    assert row == ([1, 2], "žluťoučký 🐎", None), row

    try:
        with conn.transaction():
            conn.execute("INSERT INTO orders (id, customer) VALUES (%s, 1)", (500,))
            conn.execute("SELECT 1 / %s::int", (0,))
    except psycopg.errors.DivisionByZero:
        pass
    else:
        raise AssertionError("the server's error did not arrive")
    assert conn.execute("SELECT count(*) FROM orders WHERE id = 500").fetchone() == (0,)

    with conn.cursor().copy("COPY orders TO STDOUT") as copy:
        assert len(list(copy.rows())) == 30
    with conn.cursor().copy("COPY orders FROM STDIN") as copy:
        copy.write_row((600, 1, "9.50"))
    assert conn.execute("SELECT total::float8 FROM orders WHERE id = 600").fetchone() == (9.5,)

    with conn.pipeline():
        cursors = [conn.execute(sql, (number,)) for number in (1, 2, 3)]
        assert [cursor.fetchone()[1] for cursor in cursors] == ["***-**-6789", "***-**-5462", "***-**-9041"]

    try:
        conn.execute("DROP TABLE orders")
    except psycopg.errors.InsufficientPrivilege as error:
        assert "tables are not dropped from here" in str(error), error
    else:
        raise AssertionError("DROP passed")
    try:
        conn.execute("SELECT upper(ssn) FROM customers")
    except psycopg.Error:
        pass
    else:
        raise AssertionError("an expression over a protected column passed")
print("done")
