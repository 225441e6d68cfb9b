//! The QMP commands, by subject, and the tables of commands and events.

pub(crate) mod balloon;
mod base64;
pub(crate) mod block;
pub(crate) mod blockjob;
pub(crate) mod chardev;
mod chardev_args;
pub(crate) mod cpu;
mod cpumodel;
pub(crate) mod device;
<<<<<<< HEAD
pub(crate) mod export;
=======
pub(crate) mod dump;
>>>>>>> refs/heads/qmp
pub(crate) mod fd;
pub(crate) mod host;
pub(crate) mod input;
pub(crate) mod machine;
pub(crate) mod medium;
pub(crate) mod memory;
pub(crate) mod migrate;
mod monitor;
pub(crate) mod nmi;
pub(crate) mod object;
pub(crate) mod paging;
pub(crate) mod pci;
pub(crate) mod qom;
mod qom_types;
pub(crate) mod run;
<<<<<<< HEAD
pub(crate) mod snapshot;
=======
pub(crate) mod stats;
pub(crate) mod text;
>>>>>>> refs/heads/qmp

use crate::table::{commands, events};
use crate::types::Empty;

commands! {
    "add-fd" => fd::add_fd;
<<<<<<< HEAD
    "block-commit" => blockjob::block_commit;
    "block-dirty-bitmap-add" => snapshot::block_dirty_bitmap_add;
    "block-dirty-bitmap-clear" => snapshot::block_dirty_bitmap_clear;
    "block-dirty-bitmap-disable" => snapshot::block_dirty_bitmap_disable;
    "block-dirty-bitmap-enable" => snapshot::block_dirty_bitmap_enable;
    "block-dirty-bitmap-merge" => snapshot::block_dirty_bitmap_merge;
    "block-dirty-bitmap-remove" => snapshot::block_dirty_bitmap_remove;
    "block-export-add" => export::block_export_add;
    "block-export-del" => export::block_export_del;
    "block-job-cancel" => blockjob::block_job_cancel;
    "block-job-complete" => blockjob::block_job_complete;
    "block-job-dismiss" => blockjob::block_job_dismiss;
    "block-job-finalize" => blockjob::block_job_finalize;
    "block-job-pause" => blockjob::block_job_pause;
    "block-job-resume" => blockjob::block_job_resume;
    "block-job-set-speed" => blockjob::block_job_set_speed;
    "block-stream" => blockjob::block_stream;
=======
    "balloon" => balloon::balloon;
>>>>>>> refs/heads/qmp
    "block_resize" => block::block_resize;
    "block_set_io_throttle" => block::block_set_io_throttle;
    "blockdev-add" => block::blockdev_add;
    "blockdev-backup" => blockjob::blockdev_backup;
    "blockdev-change-medium" => medium::blockdev_change_medium;
    "blockdev-close-tray" => medium::blockdev_close_tray;
    "blockdev-create" => blockjob::blockdev_create;
    "blockdev-del" => block::blockdev_del;
    "blockdev-insert-medium" => medium::blockdev_insert_medium;
    "blockdev-mirror" => blockjob::blockdev_mirror;
    "blockdev-open-tray" => medium::blockdev_open_tray;
    "blockdev-remove-medium" => medium::blockdev_remove_medium;
<<<<<<< HEAD
    "blockdev-snapshot" => snapshot::blockdev_snapshot { features: &["allow-write-only-overlay"] };
    "blockdev-snapshot-delete-internal-sync" => snapshot::snapshot_delete;
    "blockdev-snapshot-internal-sync" => snapshot::blockdev_snapshot_internal;
    "blockdev-snapshot-sync" => snapshot::blockdev_snapshot_sync;
    "change-backing-file" => snapshot::change_backing_file;
=======
    "chardev-add" => chardev::chardev_add;
    "chardev-change" => chardev::chardev_change;
>>>>>>> refs/heads/qmp
    "chardev-remove" => chardev::chardev_remove;
    "chardev-send-break" => chardev::chardev_send_break;
    "closefd" => fd::closefd;
    "cont" => run::cont;
    "device-list-properties" => qom_types::device_list_properties;
    "device_add" => device::device_add { features: &["json-cli", "json-cli-hotplug"] };
    "device_del" => device::device_del;
<<<<<<< HEAD
    "drive-backup" => blockjob::drive_backup { features: &["deprecated"] };
    "drive-mirror" => blockjob::drive_mirror;
=======
    "dump-guest-memory" => dump::dump_guest_memory;
    "dumpdtb" => host::dumpdtb;
>>>>>>> refs/heads/qmp
    "eject" => medium::eject;
    "getfd" => fd::getfd;
    "human-monitor-command" => monitor::human_monitor_command { features: &["savevm-monitor-nodes"] };
    "inject-nmi" => nmi::inject_nmi;
    "input-send-event" => input::input_send_event;
    "job-cancel" => blockjob::job_cancel;
    "job-complete" => blockjob::job_complete;
    "job-dismiss" => blockjob::job_dismiss;
    "job-finalize" => blockjob::job_finalize;
    "job-pause" => blockjob::job_pause;
    "job-resume" => blockjob::job_resume;
    "memsave" => memory::memsave;
<<<<<<< HEAD
    "nbd-server-add" => export::nbd_server_add { features: &["deprecated"] };
    "nbd-server-remove" => export::nbd_server_remove { features: &["deprecated"] };
    "nbd-server-start" => export::nbd_server_start;
    "nbd-server-stop" => export::nbd_server_stop;
=======
    "migrate-set-capabilities" => migrate::migrate_set_capabilities;
    "object-add" => object::object_add;
    "object-del" => object::object_del;
>>>>>>> refs/heads/qmp
    "pmemsave" => memory::pmemsave;
    "qmp_capabilities" => monitor::qmp_capabilities;
    "qom-get" => qom::qom_get;
    "qom-list" => qom::qom_list;
    "qom-list-properties" => qom_types::qom_list_properties;
    "qom-list-types" => qom_types::qom_list_types;
    "qom-set" => qom::qom_set;
    "query-acpi-ospm-status" => host::query_acpi_ospm_status;
    "query-balloon" => balloon::query_balloon;
    "query-block" => block::query_block;
<<<<<<< HEAD
    "query-block-exports" => export::query_block_exports;
    "query-block-jobs" => blockjob::query_block_jobs;
=======
    "query-block-jobs" => machine::query_block_jobs;
>>>>>>> refs/heads/qmp
    "query-blockstats" => block::query_blockstats;
    "query-chardev" => chardev::query_chardev;
    "query-chardev-backends" => chardev::query_chardev_backends;
    "query-command-line-options" => monitor::query_command_line_options;
    "query-commands" => monitor::query_commands;
    "query-cpu-definitions" => cpumodel::query_cpu_definitions;
    "query-cpu-model-expansion" => cpumodel::query_cpu_model_expansion;
    "query-cpus-fast" => cpu::query_cpus_fast;
    "query-current-machine" => machine::query_current_machine;
    "query-display-options" => host::query_display_options;
    "query-dump" => dump::query_dump;
    "query-dump-guest-memory-capability" => dump::query_dump_guest_memory_capability;
    "query-fdsets" => fd::query_fdsets;
    "query-hotpluggable-cpus" => cpu::query_hotpluggable_cpus;
    "query-iothreads" => machine::query_iothreads;
    "query-jobs" => blockjob::query_jobs;
    "query-kvm" => machine::query_kvm;
    "query-machines" => machine::query_machines;
    "query-memdev" => memory::query_memdev;
    "query-memory-devices" => memory::query_memory_devices;
    "query-memory-size-summary" => memory::query_memory_size_summary;
    "query-mice" => input::query_mice;
    "query-migrate-capabilities" => migrate::query_migrate_capabilities;
    "query-name" => machine::query_name;
    "query-named-block-nodes" => block::query_named_block_nodes;
    "query-pci" => pci::query_pci;
    "query-pr-managers" => host::query_pr_managers;
    "query-qmp-schema" => monitor::query_qmp_schema;
    "query-replay" => host::query_replay;
    "query-sev" => host::query_sev;
    "query-sev-attestation-report" => host::query_sev_attestation_report;
    "query-sev-capabilities" => host::query_sev_capabilities;
    "query-sev-launch-measure" => host::query_sev_launch_measure;
    "query-sgx" => host::query_sgx;
    "query-sgx-capabilities" => host::query_sgx_capabilities;
    "query-stats" => stats::query_stats;
    "query-stats-schemas" => stats::query_stats_schemas;
    "query-status" => run::query_status;
    "query-target" => machine::query_target;
    "query-tpm" => host::query_tpm;
    "query-tpm-models" => host::query_tpm_models;
    "query-tpm-types" => host::query_tpm_types;
    "query-uuid" => machine::query_uuid;
    "query-version" => monitor::query_version;
    "query-vm-generation-id" => host::query_vm_generation_id;
    "query-yank" => host::query_yank { oob: true };
    "quit" => run::quit;
    "remove-fd" => fd::remove_fd;
    "replay-break" => host::replay_break;
    "replay-delete-break" => host::replay_delete_break;
    "replay-seek" => host::replay_seek;
    "ringbuf-read" => chardev::ringbuf_read;
    "ringbuf-write" => chardev::ringbuf_write;
    "rtc-reset-reinjection" => nmi::rtc_reset_reinjection;
    "screendump" => input::screendump;
    "send-key" => input::send_key;
    "set-action" => run::set_action;
    "set-numa-node" => host::set_numa_node;
    "stop" => run::stop;
    "system_powerdown" => run::system_powerdown;
    "system_reset" => run::system_reset;
    "system_wakeup" => run::system_wakeup;
<<<<<<< HEAD
    "transaction" => snapshot::transaction;
}

events! {
    "BLOCK_EXPORT_DELETED" => export::BlockExportDeleted;
=======
    "watchdog-set-action" => nmi::watchdog_set_action;
    "x-query-irq" => text::irq { features: &["unstable"] };
    "x-query-jit" => text::jit { features: &["unstable"] };
    "x-query-numa" => text::numa { features: &["unstable"] };
    "x-query-opcount" => text::opcount { features: &["unstable"] };
    "x-query-profile" => text::profile { features: &["unstable"] };
    "x-query-ramblock" => text::ramblock { features: &["unstable"] };
    "x-query-rdma" => text::rdma { features: &["unstable"] };
    "x-query-usb" => text::usb { features: &["unstable"] };
    "yank" => host::yank { oob: true };
}

events! {
    "ACPI_DEVICE_OST" => host::AcpiDeviceOst;
    "BALLOON_CHANGE" => balloon::BalloonInfo;
>>>>>>> refs/heads/qmp
    "BLOCK_IO_ERROR" => block::BlockIoError;
    "BLOCK_JOB_CANCELLED" => blockjob::BlockJobEvent;
    "BLOCK_JOB_COMPLETED" => blockjob::BlockJobCompleted;
    "BLOCK_JOB_ERROR" => blockjob::BlockJobError;
    "BLOCK_JOB_PENDING" => blockjob::BlockJobPending;
    "BLOCK_JOB_READY" => blockjob::BlockJobEvent;
    "DEVICE_DELETED" => device::DeviceDeleted;
    "DEVICE_TRAY_MOVED" => medium::TrayMoved;
<<<<<<< HEAD
    "JOB_STATUS_CHANGE" => blockjob::JobStatusChange;
=======
    "DUMP_COMPLETED" => dump::DumpCompleted;
    "GUEST_CRASHLOADED" => run::GuestPanicked;
    "GUEST_PANICKED" => run::GuestPanicked;
>>>>>>> refs/heads/qmp
    "POWERDOWN" => Empty;
    "RESET" => run::ResetEvent;
    "RESUME" => Empty;
    "RTC_CHANGE" => nmi::RtcChange;
    "SHUTDOWN" => run::ResetEvent;
    "STOP" => Empty;
    "SUSPEND" => Empty;
    "SUSPEND_DISK" => Empty;
    "VSERPORT_CHANGE" => chardev::VserportChange;
    "WAKEUP" => Empty;
}
