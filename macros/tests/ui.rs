//! What is wrong is said where it is wrong. `TRYBUILD=overwrite cargo test` writes the texts anew.

#[test]
fn mistakes_are_pointed_at() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
