-- The store of a coordinator with the first twelve migrations, as that program wrote it: a cluster, a proxy on the second
-- host, and a task for the first host that was cut off while its package was installed. What a test has to fill in
-- stands between @ signs.
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'sequences','2026-11-21 04:26:00',1,X'519518A427CE66B142B2A2631B06132F2D46D9DDC54AD132049B5F6168CC6AC8671AE8098CE1C208EE3972C56BFF368B',435313);
INSERT INTO "_sqlx_migrations" VALUES(2,'first ids','2026-11-21 04:26:00',1,X'1D5E2CB536A6A58B9D26D6BB7C20F89E9FFF5053FF9752BEC8A98479EE69F175FA6C438C649D2DD9623F770D05EDD65F',324568);
INSERT INTO "_sqlx_migrations" VALUES(3,'users','2026-11-21 04:26:00',1,X'04DFE16F96E1F7B1ED15D2A1DD8C9DE27197D3579166EFA188A387D213FA6ED7302ED103445740FA8846B3C976F0DF43',442094);
INSERT INTO "_sqlx_migrations" VALUES(4,'hosts','2026-11-21 04:26:00',1,X'4B4AA71042998C1DB1A22FF68D5B528AB527DB544FF78399F972CFD792CEB16399BE376E06904ABB82A219FEC62CDC8B',412580);
INSERT INTO "_sqlx_migrations" VALUES(5,'packages','2026-11-21 04:26:00',1,X'407FE5F38F3F71075233A15290D500C650474899766139E1231DA871589BF681A04D1076EE052AAA300B079F613A7765',420872);
INSERT INTO "_sqlx_migrations" VALUES(6,'obproxy clusters','2026-11-21 04:26:00',1,X'76C5651271493B1B9F0850F5B2BA79228019F38F8705ADF10D282A2C547FA1B5FF0BA7520B9C2152F264177D23A92201',492870);
INSERT INTO "_sqlx_migrations" VALUES(7,'obproxies','2026-11-21 04:26:00',1,X'15B67891B0A3D25870A80755B92D9983C0686123BA8B773877E62992127336B2254857854BD6ABD59E3A819F2FC6ECC9',487692);
INSERT INTO "_sqlx_migrations" VALUES(8,'tasks','2026-11-21 04:26:00',1,X'8403F158A7514C558399FE415130CA79F47A40CC89ED3E16A2203A1F536AC6F45CE5821D268E72A967D4975A8667EA05',408994);
INSERT INTO "_sqlx_migrations" VALUES(9,'tasks by status','2026-11-21 04:26:00',1,X'85B0755329F202485FEA8031F43BDDCA7963C3BB27B7B2CA28466696B5621EEC8A32ED6A649AD3E8E22B4D2AEBC7EB3B',353361);
INSERT INTO "_sqlx_migrations" VALUES(10,'subtasks','2026-11-21 04:26:00',1,X'E95BA48281A55F457C05824F888EEA4A41036D4D9E69E15E79162ABA3A579D69A41DA428224E5ADB22AACE9DE534DB1E',453661);
INSERT INTO "_sqlx_migrations" VALUES(11,'task events','2026-11-21 04:26:00',1,X'6FCA1A337644243612F042A3FC71FCD90AEA6588FDEEA921BC660E317B9ED76ED17EE627156646A383D6384D82E756AE',391668);
INSERT INTO "_sqlx_migrations" VALUES(12,'subtask logs','2026-11-21 04:26:00',1,X'43C895C14FD53CA12973005569C1E2536FD3EDE5BACFD7C0F03A5F50FD65B1F93C2FCF0C6C33CFFDA67109C8793D526E',436745);
CREATE TABLE hosts (id BIGINT PRIMARY KEY, inner_ip VARCHAR(64) NOT NULL UNIQUE, agent_port BIGINT NOT NULL, metrics_port BIGINT NOT NULL, status VARCHAR(32) NOT NULL, details TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL);
INSERT INTO "hosts" VALUES(1,'@ADDRESS@',62898,62899,'AVAILABLE','{"alias":"","description":"","serial_number":"","kind":"DEDICATED_PHYSICAL_MACHINE","ssh_port":null,"operating_system":"Debian GNU/Linux 12 (bookworm)","operating_system_release":"6.18.44-fc-v657","architecture":"x86_64","hostname":"vm","agent_version":"0.1.0"}',1795235160697432,1795235161687367);
INSERT INTO "hosts" VALUES(2,'127.0.0.3',26716,28387,'ONLINE','{"alias":"","description":"","serial_number":"","kind":"DEDICATED_PHYSICAL_MACHINE","ssh_port":null,"operating_system":"Debian GNU/Linux 12 (bookworm)","operating_system_release":"6.18.44-fc-v657","architecture":"x86_64","hostname":"vm","agent_version":"0.1.0"}',1795235160732232,1795235161682141);
CREATE TABLE obproxies (id BIGINT PRIMARY KEY, cluster_id BIGINT NOT NULL, host_id BIGINT NOT NULL, sql_port BIGINT NOT NULL, exporter_port BIGINT NOT NULL, version VARCHAR(191) NOT NULL, architecture VARCHAR(32) NOT NULL, status VARCHAR(32) NOT NULL, parameter_version BIGINT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, UNIQUE (host_id, sql_port));
INSERT INTO "obproxies" VALUES(1,1,1,2883,2884,'obproxy-1.9.1.1-1919579.el7.x86_64.rpm','x86_64','CREATING',1,1795235161053391,1795235161687089);
INSERT INTO "obproxies" VALUES(2,1,2,2883,2884,'obproxy-1.9.1.1-1919579.el7.x86_64.rpm','x86_64','RUNNING',1,1795235161053518,1795235161681171);
CREATE TABLE obproxy_clusters (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE, address VARCHAR(255), port BIGINT, work_mode VARCHAR(16) NOT NULL, ob_links TEXT NOT NULL, startup_parameters TEXT NOT NULL, parameters TEXT NOT NULL, parameter_version BIGINT NOT NULL, secrets TEXT NOT NULL, creator VARCHAR(64) NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL);
INSERT INTO "obproxy_clusters" VALUES(1,'test',NULL,NULL,'RS_LIST','[{"cluster_name":"obdemo","ob_cluster_id":1,"username":"proxyro"}]','[{"name":"rootservice_list","value":"127.0.0.1:2881"}]','[]',1,'@SECRETS@','admin',1795235160795333,1795235160795333);
CREATE TABLE packages (id BIGINT PRIMARY KEY, file_name VARCHAR(191) NOT NULL UNIQUE, kind VARCHAR(64) NOT NULL, size_bytes BIGINT NOT NULL, installed_bytes BIGINT NOT NULL, sha1 VARCHAR(40) NOT NULL, sha256 VARCHAR(64) NOT NULL, created_at BIGINT NOT NULL);
INSERT INTO "packages" VALUES(1,'obproxy-1.9.1.1-1919579.el7.x86_64.rpm','OBPROXY_INSTALL_PACKAGE',@SIZE_BYTES@,1011106,'@SHA1@','@SHA256@',1795235160676575);
CREATE TABLE sequences (name VARCHAR(64) PRIMARY KEY, next_value BIGINT NOT NULL);
INSERT INTO "sequences" VALUES('epoch',2);
INSERT INTO "sequences" VALUES('task',4);
INSERT INTO "sequences" VALUES('subtask',27);
INSERT INTO "sequences" VALUES('host',3);
INSERT INTO "sequences" VALUES('package',2);
INSERT INTO "sequences" VALUES('obproxy_cluster',2);
INSERT INTO "sequences" VALUES('obproxy',3);
INSERT INTO "sequences" VALUES('user',101);
CREATE TABLE subtask_logs (task_id BIGINT NOT NULL, node BIGINT NOT NULL, attempt BIGINT NOT NULL, part BIGINT NOT NULL, text TEXT NOT NULL, agent_offset BIGINT NOT NULL, PRIMARY KEY (task_id, node, attempt, part));
INSERT INTO "subtask_logs" VALUES(1,0,1,0,'############{EXECUTE}{2026-11-21T04:26:00.798+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(1,0,1,1,'proxy cluster demo is registered
',0);
INSERT INTO "subtask_logs" VALUES(1,1,1,0,'############{EXECUTE}{2026-11-21T04:26:00.802+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(2,0,1,0,'############{EXECUTE}{2026-11-21T04:26:01.060+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,0,1,0,'############{EXECUTE}{2026-11-21T04:26:01.061+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(2,0,1,1,'host 127.0.0.2 (vm): agent 0.1.0, x86_64, 2 processors
',0);
INSERT INTO "subtask_logs" VALUES(3,0,1,1,'host 127.0.0.3 (vm): agent 0.1.0, x86_64, 2 processors
',0);
INSERT INTO "subtask_logs" VALUES(2,1,1,0,'############{EXECUTE}{2026-11-21T04:26:01.070+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,1,1,0,'############{EXECUTE}{2026-11-21T04:26:01.073+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(2,1,1,1,'ports, run user, architecture and disk space fit
',49);
INSERT INTO "subtask_logs" VALUES(3,1,1,1,'ports, run user, architecture and disk space fit
',49);
INSERT INTO "subtask_logs" VALUES(2,2,1,0,'############{EXECUTE}{2026-11-21T04:26:01.078+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(2,2,1,1,'no process has one of obproxy, obproxyd.sh in its command line
',63);
INSERT INTO "subtask_logs" VALUES(3,2,1,0,'############{EXECUTE}{2026-11-21T04:26:01.082+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,2,1,1,'no process has one of obproxy, obproxyd.sh in its command line
',63);
INSERT INTO "subtask_logs" VALUES(2,3,1,0,'############{EXECUTE}{2026-11-21T04:26:01.087+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(2,3,1,1,'nc: /usr/bin/nc
',16);
INSERT INTO "subtask_logs" VALUES(3,3,1,0,'############{EXECUTE}{2026-11-21T04:26:01.092+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,3,1,1,'nc: /usr/bin/nc
',16);
INSERT INTO "subtask_logs" VALUES(2,4,1,0,'############{EXECUTE}{2026-11-21T04:26:01.097+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,4,1,0,'############{EXECUTE}{2026-11-21T04:26:01.109+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,4,1,1,'package obproxy-1.9.1.1-1919579.el7.x86_64.rpm sent to 127.0.0.3:26716 (1018601 bytes)
',0);
INSERT INTO "subtask_logs" VALUES(3,4,1,2,'rpm --dbpath /srv/demo/host2/root/var/lib/rpm -iv --nodeps --badreloc --relocate /opt=/srv/demo/host2/root/opt /srv/demo/host2/state/packages/@SHA256@/obproxy-1.9.1.1-1919579.el7.x86_64.rpm
',285);
INSERT INTO "subtask_logs" VALUES(3,4,1,3,'rpm: RPM should not be used directly install RPM packages, use Alien instead!
rpm: However assuming you know what you are doing...
',416);
INSERT INTO "subtask_logs" VALUES(3,4,1,4,'Verifying packages...
Preparing packages...
obproxy-1.9.1.1-1919579.el7.x86_64
obproxy stand-in is installed
',525);
INSERT INTO "subtask_logs" VALUES(3,5,1,0,'############{EXECUTE}{2026-11-21T04:26:01.523+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,5,1,1,'/srv/demo/host2/root/opt/taobao/install/obproxy-1.9.1.1/bin/obproxy -N -p 2883 -l 2884 -n demo -r 127.0.0.1:2881 -c obdemo -o local_bound_ip=127.0.0.3,skip_proxy_sys_private_check=true
',198);
INSERT INTO "subtask_logs" VALUES(3,5,1,2,'port 2883: login of root@proxysys with the built-in password
port 2884: 7 samples
',280);
INSERT INTO "subtask_logs" VALUES(3,6,1,0,'############{EXECUTE}{2026-11-21T04:26:01.563+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,7,1,0,'############{EXECUTE}{2026-11-21T04:26:01.579+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,7,1,1,'proxyro@sys has its password
root@proxysys: password set, login verified
',73);
INSERT INTO "subtask_logs" VALUES(3,8,1,0,'############{EXECUTE}{2026-11-21T04:26:01.642+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,8,1,1,'obproxy 2883 listed, generation 1
',34);
INSERT INTO "subtask_logs" VALUES(3,9,1,0,'############{EXECUTE}{2026-11-21T04:26:01.659+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,9,1,1,'port 2884 serves 7 samples of 7 metrics
obproxy 2883 listed, generation 2
',74);
INSERT INTO "subtask_logs" VALUES(3,10,1,0,'############{EXECUTE}{2026-11-21T04:26:01.677+00:00}############
',0);
INSERT INTO "subtask_logs" VALUES(3,10,1,1,'proxy 2 is RUNNING
',0);
INSERT INTO "subtask_logs" VALUES(3,11,1,0,'############{EXECUTE}{2026-11-21T04:26:01.689+00:00}############
',0);
CREATE TABLE subtasks (id BIGINT PRIMARY KEY, task_id BIGINT NOT NULL, node BIGINT NOT NULL, status VARCHAR(16) NOT NULL, operation VARCHAR(16) NOT NULL, run_time BIGINT NOT NULL, started_at BIGINT, finished_at BIGINT, failure TEXT, UNIQUE (task_id, node));
INSERT INTO "subtasks" VALUES(1,1,0,'SUCCESSFUL','EXECUTE',1,1795235160797801,1795235160800290,NULL);
INSERT INTO "subtasks" VALUES(2,1,1,'SUCCESSFUL','EXECUTE',1,1795235160801472,1795235160802726,NULL);
INSERT INTO "subtasks" VALUES(3,2,0,'SUCCESSFUL','EXECUTE',1,1795235161058634,1795235161067275,NULL);
INSERT INTO "subtasks" VALUES(4,2,1,'SUCCESSFUL','EXECUTE',1,1795235161068743,1795235161075789,NULL);
INSERT INTO "subtasks" VALUES(5,2,2,'SUCCESSFUL','EXECUTE',1,1795235161077090,1795235161083460,NULL);
INSERT INTO "subtasks" VALUES(6,2,3,'SUCCESSFUL','EXECUTE',1,1795235161084817,1795235161091298,NULL);
INSERT INTO "subtasks" VALUES(7,2,4,'RUNNING','EXECUTE',1,1795235161093030,NULL,NULL);
INSERT INTO "subtasks" VALUES(8,2,5,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(9,2,6,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(10,2,7,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(11,2,8,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(12,2,9,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(13,2,10,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(14,2,11,'PENDING','EXECUTE',1,NULL,NULL,NULL);
INSERT INTO "subtasks" VALUES(15,3,0,'SUCCESSFUL','EXECUTE',1,1795235161059242,1795235161069246,NULL);
INSERT INTO "subtasks" VALUES(16,3,1,'SUCCESSFUL','EXECUTE',1,1795235161071135,1795235161077568,NULL);
INSERT INTO "subtasks" VALUES(17,3,2,'SUCCESSFUL','EXECUTE',1,1795235161079409,1795235161088139,NULL);
INSERT INTO "subtasks" VALUES(18,3,3,'SUCCESSFUL','EXECUTE',1,1795235161090796,1795235161098105,NULL);
INSERT INTO "subtasks" VALUES(19,3,4,'SUCCESSFUL','EXECUTE',1,1795235161104563,1795235161517352,NULL);
INSERT INTO "subtasks" VALUES(20,3,5,'SUCCESSFUL','EXECUTE',1,1795235161519856,1795235161558473,NULL);
INSERT INTO "subtasks" VALUES(21,3,6,'SUCCESSFUL','EXECUTE',1,1795235161560889,1795235161572461,NULL);
INSERT INTO "subtasks" VALUES(22,3,7,'SUCCESSFUL','EXECUTE',1,1795235161574063,1795235161636913,NULL);
INSERT INTO "subtasks" VALUES(23,3,8,'SUCCESSFUL','EXECUTE',1,1795235161637970,1795235161654166,NULL);
INSERT INTO "subtasks" VALUES(24,3,9,'SUCCESSFUL','EXECUTE',1,1795235161656019,1795235161673045,NULL);
INSERT INTO "subtasks" VALUES(25,3,10,'SUCCESSFUL','EXECUTE',1,1795235161674393,1795235161685095,NULL);
INSERT INTO "subtasks" VALUES(26,3,11,'SUCCESSFUL','EXECUTE',1,1795235161686789,1795235161690312,NULL);
CREATE TABLE task_events (task_id BIGINT NOT NULL, sequence BIGINT NOT NULL, node BIGINT, attempt BIGINT, kind VARCHAR(32) NOT NULL, payload TEXT NOT NULL, epoch BIGINT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (task_id, sequence), UNIQUE (task_id, node, attempt, kind));
INSERT INTO "task_events" VALUES(1,1,0,1,'dispatched','{"kind":"dispatched","node":0,"attempt":1,"direction":"execute"}',1,1795235160797801);
INSERT INTO "task_events" VALUES(1,2,0,1,'succeeded','{"kind":"succeeded","node":0,"attempt":1,"effect":"done","output":[]}',1,1795235160800290);
INSERT INTO "task_events" VALUES(1,3,1,1,'dispatched','{"kind":"dispatched","node":1,"attempt":1,"direction":"execute"}',1,1795235160801472);
INSERT INTO "task_events" VALUES(1,4,1,1,'succeeded','{"kind":"succeeded","node":1,"attempt":1,"effect":"done","output":[]}',1,1795235160802726);
INSERT INTO "task_events" VALUES(2,1,0,1,'dispatched','{"kind":"dispatched","node":0,"attempt":1,"direction":"execute"}',1,1795235161058634);
INSERT INTO "task_events" VALUES(3,1,0,1,'dispatched','{"kind":"dispatched","node":0,"attempt":1,"direction":"execute"}',1,1795235161059242);
INSERT INTO "task_events" VALUES(2,2,0,1,'succeeded','{"kind":"succeeded","node":0,"attempt":1,"effect":"done","output":[]}',1,1795235161067275);
INSERT INTO "task_events" VALUES(2,3,1,1,'dispatched','{"kind":"dispatched","node":1,"attempt":1,"direction":"execute"}',1,1795235161068743);
INSERT INTO "task_events" VALUES(3,2,0,1,'succeeded','{"kind":"succeeded","node":0,"attempt":1,"effect":"done","output":[]}',1,1795235161069246);
INSERT INTO "task_events" VALUES(3,3,1,1,'dispatched','{"kind":"dispatched","node":1,"attempt":1,"direction":"execute"}',1,1795235161071135);
INSERT INTO "task_events" VALUES(2,4,1,1,'succeeded','{"kind":"succeeded","node":1,"attempt":1,"effect":"none","output":[]}',1,1795235161075789);
INSERT INTO "task_events" VALUES(2,5,2,1,'dispatched','{"kind":"dispatched","node":2,"attempt":1,"direction":"execute"}',1,1795235161077090);
INSERT INTO "task_events" VALUES(3,4,1,1,'succeeded','{"kind":"succeeded","node":1,"attempt":1,"effect":"none","output":[]}',1,1795235161077568);
INSERT INTO "task_events" VALUES(3,5,2,1,'dispatched','{"kind":"dispatched","node":2,"attempt":1,"direction":"execute"}',1,1795235161079409);
INSERT INTO "task_events" VALUES(2,6,2,1,'succeeded','{"kind":"succeeded","node":2,"attempt":1,"effect":"none","output":[]}',1,1795235161083460);
INSERT INTO "task_events" VALUES(2,7,3,1,'dispatched','{"kind":"dispatched","node":3,"attempt":1,"direction":"execute"}',1,1795235161084817);
INSERT INTO "task_events" VALUES(3,6,2,1,'succeeded','{"kind":"succeeded","node":2,"attempt":1,"effect":"none","output":[]}',1,1795235161088139);
INSERT INTO "task_events" VALUES(3,7,3,1,'dispatched','{"kind":"dispatched","node":3,"attempt":1,"direction":"execute"}',1,1795235161090796);
INSERT INTO "task_events" VALUES(2,8,3,1,'succeeded','{"kind":"succeeded","node":3,"attempt":1,"effect":"none","output":[]}',1,1795235161091298);
INSERT INTO "task_events" VALUES(2,9,4,1,'dispatched','{"kind":"dispatched","node":4,"attempt":1,"direction":"execute"}',1,@DISPATCHED_AT@);
INSERT INTO "task_events" VALUES(3,8,3,1,'succeeded','{"kind":"succeeded","node":3,"attempt":1,"effect":"none","output":[]}',1,1795235161098105);
INSERT INTO "task_events" VALUES(3,9,4,1,'dispatched','{"kind":"dispatched","node":4,"attempt":1,"direction":"execute"}',1,1795235161104563);
INSERT INTO "task_events" VALUES(3,10,4,1,'succeeded','{"kind":"succeeded","node":4,"attempt":1,"effect":"done","output":[["home","/srv/demo/host2/root/opt/taobao/install/obproxy-1.9.1.1"]]}',1,1795235161517352);
INSERT INTO "task_events" VALUES(3,11,5,1,'dispatched','{"kind":"dispatched","node":5,"attempt":1,"direction":"execute"}',1,1795235161519856);
INSERT INTO "task_events" VALUES(3,12,5,1,'succeeded','{"kind":"succeeded","node":5,"attempt":1,"effect":"done","output":[]}',1,1795235161558473);
INSERT INTO "task_events" VALUES(3,13,6,1,'dispatched','{"kind":"dispatched","node":6,"attempt":1,"direction":"execute"}',1,1795235161560889);
INSERT INTO "task_events" VALUES(3,14,6,1,'succeeded','{"kind":"succeeded","node":6,"attempt":1,"effect":"none","output":[]}',1,1795235161572461);
INSERT INTO "task_events" VALUES(3,15,7,1,'dispatched','{"kind":"dispatched","node":7,"attempt":1,"direction":"execute"}',1,1795235161574063);
INSERT INTO "task_events" VALUES(3,16,7,1,'succeeded','{"kind":"succeeded","node":7,"attempt":1,"effect":"done","output":[]}',1,1795235161636913);
INSERT INTO "task_events" VALUES(3,17,8,1,'dispatched','{"kind":"dispatched","node":8,"attempt":1,"direction":"execute"}',1,1795235161637970);
INSERT INTO "task_events" VALUES(3,18,8,1,'succeeded','{"kind":"succeeded","node":8,"attempt":1,"effect":"done","output":[]}',1,1795235161654166);
INSERT INTO "task_events" VALUES(3,19,9,1,'dispatched','{"kind":"dispatched","node":9,"attempt":1,"direction":"execute"}',1,1795235161656019);
INSERT INTO "task_events" VALUES(3,20,9,1,'succeeded','{"kind":"succeeded","node":9,"attempt":1,"effect":"done","output":[]}',1,1795235161673045);
INSERT INTO "task_events" VALUES(3,21,10,1,'dispatched','{"kind":"dispatched","node":10,"attempt":1,"direction":"execute"}',1,1795235161674393);
INSERT INTO "task_events" VALUES(3,22,10,1,'succeeded','{"kind":"succeeded","node":10,"attempt":1,"effect":"done","output":[]}',1,1795235161685095);
INSERT INTO "task_events" VALUES(3,23,11,1,'dispatched','{"kind":"dispatched","node":11,"attempt":1,"direction":"execute"}',1,1795235161686789);
INSERT INTO "task_events" VALUES(3,24,11,1,'succeeded','{"kind":"succeeded","node":11,"attempt":1,"effect":"done","output":[]}',1,1795235161690312);
CREATE TABLE tasks (id BIGINT PRIMARY KEY, name VARCHAR(128) NOT NULL, status VARCHAR(16) NOT NULL, operation VARCHAR(16) NOT NULL, creator VARCHAR(64) NOT NULL, executor VARCHAR(64) NOT NULL, host_id BIGINT, cluster_id BIGINT, plan TEXT NOT NULL, epoch BIGINT NOT NULL, next_sequence BIGINT NOT NULL, trace_id VARCHAR(16) NOT NULL, created_at BIGINT NOT NULL, finished_at BIGINT);
INSERT INTO "tasks" VALUES(1,'Install obproxy','SUCCESSFUL','EXECUTE','admin','127.0.0.1',NULL,1,'{"name":"Install obproxy","context":{"list_map":{},"string_map":{"prohibit_rollback":"false"}},"host_id":null,"obproxy_cluster_id":1,"nodes":[{"step":{"place":"coordinator","step":{"kind":"prepare_obproxy_install","cluster_id":1,"proxy":null,"package":null}},"host_id":null,"series_id":0,"parallel_index":-1,"upstreams":[],"execute_id":"01a1fc5a-a2db-7348-ab1d-ef623d8d83a7","undo_id":"01a1fc5a-a2db-7348-ab1d-ef63190ac2ae"},{"step":{"place":"coordinator","step":{"kind":"finish"}},"host_id":null,"series_id":1,"parallel_index":-1,"upstreams":[0],"execute_id":"01a1fc5a-a2db-7348-ab1d-ef648357316c","undo_id":"01a1fc5a-a2db-7348-ab1d-ef655a035c01"}]}',1,5,'89ba0bf1f8b96b56',1795235160795720,1795235160802726);
INSERT INTO "tasks" VALUES(2,'Install obproxy','RUNNING','EXECUTE','admin','127.0.0.1',1,1,'{"name":"Install obproxy","context":{"list_map":{"commands_to_check":["nc"],"process_keywords":["obproxy","obproxyd.sh"]},"string_map":{"host_id":"1","obproxy_cluster_id":"1","obproxy_cluster_name":"demo","obproxy_need_delete_cluster":"false","obproxy_parameter_version":"1","obproxy_server_id":"1","package_name":"obproxy","package_version":"1.9.1.1-1919579","prohibit_rollback":"false","service_name":"demo"}},"host_id":1,"obproxy_cluster_id":1,"nodes":[{"step":{"place":"coordinator","step":{"kind":"prepare_obproxy_install","cluster_id":1,"proxy":{"cluster_id":1,"server_id":1},"package":"obproxy-1.9.1.1-1919579.el7.x86_64"}},"host_id":null,"series_id":4,"parallel_index":-1,"upstreams":[],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d333250f847c","undo_id":"01a1fc5a-a3dd-71e7-8d40-d334fc49fede"},{"step":{"place":"agent","step":{"kind":"check_instance","ports":[2883,2884],"architecture":"x86_64","disk_bytes":1011106}},"host_id":1,"series_id":0,"parallel_index":-1,"upstreams":[0],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d3356ba120e2","undo_id":"01a1fc5a-a3dd-71e7-8d40-d33669141a7c"},{"step":{"place":"agent","step":{"kind":"check_processes","keywords":["obproxy","obproxyd.sh"]}},"host_id":1,"series_id":8,"parallel_index":-1,"upstreams":[1],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d337e4ed825a","undo_id":"01a1fc5a-a3dd-71e7-8d40-d338a0913be1"},{"step":{"place":"agent","step":{"kind":"check_commands","commands":["nc"]}},"host_id":1,"series_id":6,"parallel_index":-1,"upstreams":[2],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d339d554bb87","undo_id":"01a1fc5a-a3dd-71e7-8d40-d33a1213cf89"},{"step":{"place":"agent","step":{"kind":"install_package","package":"obproxy-1.9.1.1-1919579.el7.x86_64","sha256":"@SHA256@"}},"host_id":1,"series_id":5,"parallel_index":-1,"upstreams":[3],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d33b33c10c70","undo_id":"01a1fc5a-a3dd-71e7-8d40-d33c614e9745"},{"step":{"place":"agent","step":{"kind":"start_obproxy","package":"obproxy-1.9.1.1-1919579.el7.x86_64","app_name":"test","sql_port":2883,"exporter_port":2884,"work_mode":{"mode":"RS_LIST","cluster_name":"obdemo","servers":["127.0.0.1:2881"]},"startup_parameters":[]}},"host_id":1,"series_id":1,"parallel_index":-1,"upstreams":[4],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d33d313d52b3","undo_id":"01a1fc5a-a3dd-71e7-8d40-d33e478dec67"},{"step":{"place":"agent","step":{"kind":"sync_obproxy_parameters","sql_port":2883,"parameters":[]}},"host_id":1,"series_id":3,"parallel_index":-1,"upstreams":[5],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d33f0dd5043e","undo_id":"01a1fc5a-a3dd-71e7-8d40-d340b477f238"},{"step":{"place":"agent","step":{"kind":"set_obproxy_passwords","sql_port":2883}},"host_id":1,"series_id":10,"parallel_index":-1,"upstreams":[6],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d34180961a27","undo_id":"01a1fc5a-a3dd-71e7-8d40-d3427fe0f7ee"},{"step":{"place":"agent","step":{"kind":"refresh_config","instance":{"kind":"obproxy","sql_port":2883,"exporter_port":2884,"cluster_name":"demo","cluster_id":1,"server_id":1}}},"host_id":1,"series_id":9,"parallel_index":-1,"upstreams":[7],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d343a3c8213a","undo_id":"01a1fc5a-a3dd-71e7-8d40-d344b717ec0e"},{"step":{"place":"agent","step":{"kind":"expose_exporter","instance":{"kind":"obproxy","sql_port":2883,"exporter_port":2884,"cluster_name":"demo","cluster_id":1,"server_id":1}}},"host_id":1,"series_id":7,"parallel_index":-1,"upstreams":[8],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d3453f5001b0","undo_id":"01a1fc5a-a3dd-71e7-8d40-d346069d2b43"},{"step":{"place":"coordinator","step":{"kind":"update_obproxy_status","cluster_id":1,"server_id":1}},"host_id":1,"series_id":11,"parallel_index":-1,"upstreams":[9],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d3478d3c0925","undo_id":"01a1fc5a-a3dd-71e7-8d40-d34875f9481a"},{"step":{"place":"coordinator","step":{"kind":"finish"}},"host_id":null,"series_id":2,"parallel_index":-1,"upstreams":[10],"execute_id":"01a1fc5a-a3dd-71e7-8d40-d349ef185380","undo_id":"01a1fc5a-a3dd-71e7-8d40-d34aa7434b26"}]}',1,10,'8c3e741d31b353a2',1795235161054183,NULL);
INSERT INTO "tasks" VALUES(3,'Install obproxy','SUCCESSFUL','EXECUTE','admin','127.0.0.1',2,1,'{"name":"Install obproxy","context":{"list_map":{"commands_to_check":["nc"],"process_keywords":["obproxy","obproxyd.sh"]},"string_map":{"host_id":"2","obproxy_cluster_id":"1","obproxy_cluster_name":"demo","obproxy_need_delete_cluster":"false","obproxy_parameter_version":"1","obproxy_server_id":"2","package_name":"obproxy","package_version":"1.9.1.1-1919579","prohibit_rollback":"false","service_name":"demo"}},"host_id":2,"obproxy_cluster_id":1,"nodes":[{"step":{"place":"coordinator","step":{"kind":"prepare_obproxy_install","cluster_id":1,"proxy":{"cluster_id":1,"server_id":2},"package":"obproxy-1.9.1.1-1919579.el7.x86_64"}},"host_id":null,"series_id":4,"parallel_index":-1,"upstreams":[],"execute_id":"01a1fc5a-a3de-71da-9a08-4b849f85ca31","undo_id":"01a1fc5a-a3de-71da-9a08-4b85e067d8e6"},{"step":{"place":"agent","step":{"kind":"check_instance","ports":[2883,2884],"architecture":"x86_64","disk_bytes":1011106}},"host_id":2,"series_id":0,"parallel_index":-1,"upstreams":[0],"execute_id":"01a1fc5a-a3de-71da-9a08-4b8665173239","undo_id":"01a1fc5a-a3de-71da-9a08-4b87dc1b6ee1"},{"step":{"place":"agent","step":{"kind":"check_processes","keywords":["obproxy","obproxyd.sh"]}},"host_id":2,"series_id":8,"parallel_index":-1,"upstreams":[1],"execute_id":"01a1fc5a-a3de-71da-9a08-4b88cc96a121","undo_id":"01a1fc5a-a3de-71da-9a08-4b89bea1f2ab"},{"step":{"place":"agent","step":{"kind":"check_commands","commands":["nc"]}},"host_id":2,"series_id":6,"parallel_index":-1,"upstreams":[2],"execute_id":"01a1fc5a-a3de-71da-9a08-4b8afbd7436c","undo_id":"01a1fc5a-a3de-71da-9a08-4b8b6960ee81"},{"step":{"place":"agent","step":{"kind":"install_package","package":"obproxy-1.9.1.1-1919579.el7.x86_64","sha256":"@SHA256@"}},"host_id":2,"series_id":5,"parallel_index":-1,"upstreams":[3],"execute_id":"01a1fc5a-a3de-71da-9a08-4b8c8af26bf1","undo_id":"01a1fc5a-a3de-71da-9a08-4b8dc84964aa"},{"step":{"place":"agent","step":{"kind":"start_obproxy","package":"obproxy-1.9.1.1-1919579.el7.x86_64","app_name":"test","sql_port":2883,"exporter_port":2884,"work_mode":{"mode":"RS_LIST","cluster_name":"obdemo","servers":["127.0.0.1:2881"]},"startup_parameters":[]}},"host_id":2,"series_id":1,"parallel_index":-1,"upstreams":[4],"execute_id":"01a1fc5a-a3de-71da-9a08-4b8e7f424be7","undo_id":"01a1fc5a-a3de-71da-9a08-4b8fe36592b0"},{"step":{"place":"agent","step":{"kind":"sync_obproxy_parameters","sql_port":2883,"parameters":[]}},"host_id":2,"series_id":3,"parallel_index":-1,"upstreams":[5],"execute_id":"01a1fc5a-a3de-71da-9a08-4b90a962c079","undo_id":"01a1fc5a-a3de-71da-9a08-4b91999922d2"},{"step":{"place":"agent","step":{"kind":"set_obproxy_passwords","sql_port":2883}},"host_id":2,"series_id":10,"parallel_index":-1,"upstreams":[6],"execute_id":"01a1fc5a-a3de-71da-9a08-4b92aa5387c2","undo_id":"01a1fc5a-a3de-71da-9a08-4b9365767408"},{"step":{"place":"agent","step":{"kind":"refresh_config","instance":{"kind":"obproxy","sql_port":2883,"exporter_port":2884,"cluster_name":"demo","cluster_id":1,"server_id":2}}},"host_id":2,"series_id":9,"parallel_index":-1,"upstreams":[7],"execute_id":"01a1fc5a-a3de-71da-9a08-4b947dbfc0f9","undo_id":"01a1fc5a-a3de-71da-9a08-4b952862fe61"},{"step":{"place":"agent","step":{"kind":"expose_exporter","instance":{"kind":"obproxy","sql_port":2883,"exporter_port":2884,"cluster_name":"demo","cluster_id":1,"server_id":2}}},"host_id":2,"series_id":7,"parallel_index":-1,"upstreams":[8],"execute_id":"01a1fc5a-a3de-71da-9a08-4b96a665a304","undo_id":"01a1fc5a-a3de-71da-9a08-4b979711b95b"},{"step":{"place":"coordinator","step":{"kind":"update_obproxy_status","cluster_id":1,"server_id":2}},"host_id":2,"series_id":11,"parallel_index":-1,"upstreams":[9],"execute_id":"01a1fc5a-a3de-71da-9a08-4b982797d620","undo_id":"01a1fc5a-a3de-71da-9a08-4b99e21d994a"},{"step":{"place":"coordinator","step":{"kind":"finish"}},"host_id":null,"series_id":2,"parallel_index":-1,"upstreams":[10],"execute_id":"01a1fc5a-a3de-71da-9a08-4b9a8f67a6d9","undo_id":"01a1fc5a-a3de-71da-9a08-4b9bb07417ea"}]}',1,25,'8c3e741d31b353a2',1795235161055116,1795235161690312);
CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE, password_hash TEXT NOT NULL, created_at BIGINT NOT NULL);
INSERT INTO "users" VALUES(100,'admin','@PASSWORD_HASH@',1795235160257534);
CREATE INDEX tasks_by_status ON tasks (status, id);
COMMIT;
