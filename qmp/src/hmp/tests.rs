use super::cmds::{COMMANDS, INFO};
use super::table::HmpCommand;

#[test]
fn tables_are_sorted_and_named_once() {
    for table in [COMMANDS, INFO] {
        assert!(table.windows(2).all(|w| w[0].name < w[1].name), "a command table is not sorted");
        let names = |c: &'static HmpCommand| c.name.split('|');
        let mut all: Vec<&str> = table.iter().flat_map(names).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "a name occurs twice");
    }
}
