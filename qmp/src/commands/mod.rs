//! The QMP commands, by subject, and the tables of commands and events.

pub(crate) mod block;
pub(crate) mod chardev;
pub(crate) mod cpu;
pub(crate) mod device;
pub(crate) mod fd;
pub(crate) mod input;
pub(crate) mod machine;
pub(crate) mod medium;
pub(crate) mod memory;
mod monitor;
pub(crate) mod paging;
pub(crate) mod pci;
pub(crate) mod qom;
pub(crate) mod run;

use crate::table::{commands, events};
use crate::types::Empty;

commands! {
    "add-fd" => fd::add_fd;
    "block_resize" => block::block_resize;
    "blockdev-add" => block::blockdev_add;
    "blockdev-change-medium" => medium::blockdev_change_medium;
    "blockdev-close-tray" => medium::blockdev_close_tray;
    "blockdev-del" => block::blockdev_del;
    "blockdev-insert-medium" => medium::blockdev_insert_medium;
    "blockdev-open-tray" => medium::blockdev_open_tray;
    "blockdev-remove-medium" => medium::blockdev_remove_medium;
    "chardev-remove" => chardev::chardev_remove;
    "chardev-send-break" => chardev::chardev_send_break;
    "closefd" => fd::closefd;
    "cont" => run::cont;
    "device-list-properties" => qom::device_list_properties;
    "device_add" => device::device_add { features: &["json-cli", "json-cli-hotplug"] };
    "device_del" => device::device_del;
    "eject" => medium::eject;
    "getfd" => fd::getfd;
    "human-monitor-command" => monitor::human_monitor_command { features: &["savevm-monitor-nodes"] };
    "input-send-event" => input::input_send_event;
    "memsave" => memory::memsave;
    "pmemsave" => memory::pmemsave;
    "qmp_capabilities" => monitor::qmp_capabilities;
    "qom-get" => qom::qom_get;
    "qom-list" => qom::qom_list;
    "qom-list-properties" => qom::qom_list_properties;
    "qom-list-types" => qom::qom_list_types;
    "qom-set" => qom::qom_set;
    "query-block" => block::query_block;
    "query-blockstats" => block::query_blockstats;
    "query-chardev" => chardev::query_chardev;
    "query-command-line-options" => monitor::query_command_line_options;
    "query-commands" => monitor::query_commands;
    "query-cpus-fast" => cpu::query_cpus_fast;
    "query-current-machine" => machine::query_current_machine;
    "query-fdsets" => fd::query_fdsets;
    "query-hotpluggable-cpus" => cpu::query_hotpluggable_cpus;
    "query-iothreads" => machine::query_iothreads;
    "query-jobs" => machine::query_jobs;
    "query-kvm" => machine::query_kvm;
    "query-machines" => machine::query_machines;
    "query-memdev" => memory::query_memdev;
    "query-memory-devices" => memory::query_memory_devices;
    "query-memory-size-summary" => memory::query_memory_size_summary;
    "query-mice" => input::query_mice;
    "query-migrate-capabilities" => machine::query_migrate_capabilities;
    "query-name" => machine::query_name;
    "query-named-block-nodes" => block::query_named_block_nodes;
    "query-pci" => pci::query_pci;
    "query-qmp-schema" => monitor::query_qmp_schema;
    "query-status" => run::query_status;
    "query-target" => machine::query_target;
    "query-uuid" => machine::query_uuid;
    "query-version" => monitor::query_version;
    "quit" => run::quit;
    "remove-fd" => fd::remove_fd;
    "screendump" => input::screendump;
    "send-key" => input::send_key;
    "set-action" => run::set_action;
    "stop" => run::stop;
    "system_powerdown" => run::system_powerdown;
    "system_reset" => run::system_reset;
    "system_wakeup" => run::system_wakeup;
}

events! {
    "BLOCK_IO_ERROR" => block::BlockIoError;
    "DEVICE_DELETED" => device::DeviceDeleted;
    "DEVICE_TRAY_MOVED" => medium::TrayMoved;
    "POWERDOWN" => Empty;
    "RESET" => run::ResetEvent;
    "RESUME" => Empty;
    "SHUTDOWN" => run::ResetEvent;
    "STOP" => Empty;
    "SUSPEND" => Empty;
    "WAKEUP" => Empty;
}
