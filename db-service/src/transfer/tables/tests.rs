use super::*;

#[test]
fn the_indexes_are_those_of_their_tables() {
    let names = [(USERS, "users"), (SESSIONS, "sessions"), (CONVERSATIONS, "conversations")];
    for (index, name) in names.into_iter().chain([(MEMBERS, "members"), (ENTRIES, "entries")]) {
        assert_eq!(TABLES[index].name, name);
    }
    let conversation_tables = TABLES.iter().skip_while(|table| table.name != "conversations");
    assert!(conversation_tables.skip(1).all(|table| table.derived.contains(&KEY)));
}

#[test]
fn rows_that_do_not_fit_their_table_are_refused() {
    let value = |value| ExportValue { value: Some(value) };
    let key = |slot, secret| ExportRow {
        table: 0,
        values: vec![value(slot), value(Value::Text("id".into())), value(secret)],
    };
    let bytes = || Value::Data(vec![1].into());
    table_of(&key(Value::Number(1), bytes())).unwrap();
    for row in [
        key(Value::Number(1 << 40), bytes()),
        key(Value::Text("1".into()), bytes()),
        key(Value::Number(1), Value::Text("secret".into())),
        ExportRow { table: 99, values: Vec::new() },
        ExportRow { table: 1, values: vec![value(Value::Text("a".into()))] },
        ExportRow { table: 1, values: vec![value(Value::Text("\0".into())); 3] },
    ] {
        assert!(table_of(&row).is_err(), "{row:?}");
    }
}
