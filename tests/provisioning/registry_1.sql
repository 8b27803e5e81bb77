-- A registry as version 1 of its schema had it: one board enrolled, one pending, one revoked.
create table board (
    id                text    primary key,          -- painted on the post, 1..32 characters
    state             text    not null check (state in ('pending', 'enrolled', 'revoked')),
                      -- pending: the credential is signed and may be on the board; the board has not confirmed it
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    tier              integer not null,             -- 0 software, 1 chip, 2 secure element
    model             text    not null,
    hardware          blob    not null,             -- machine.unique_id()
    credential        blob    not null,             -- the COSE_Sign1 that the board holds, byte for byte
    credential_digest blob    not null,             -- 16 bytes; the predecessor of its first report
    post              text,                         -- the id of its post
    latitude          integer,                      -- WGS 84, 1e-7 degrees
    longitude         integer,
    begun             integer not null,             -- Unix seconds: the credential was signed
    enrolled          integer,                      -- Unix seconds: the board confirmed
    revoked           integer,                      -- Unix seconds
    reason            text,                         -- why it was revoked
    check ((latitude is null) = (longitude is null)),
    check ((enrolled is null) or state <> 'pending'),
    check ((revoked is null) = (state <> 'revoked'))
) strict;
create table roster (
    gateway text    not null,
    version integer not null,                       -- one more for each roster of a gateway
    issued  integer not null,                       -- Unix seconds
    digest  blob    not null,                       -- SHA-256 of its payload, 32 bytes
    body    blob    not null,                       -- the COSE_Sign1
    primary key (gateway, version)
) strict;
insert into board values ('LE-1', 'enrolled', x'aa', x'ab', 0, 'pico', x'01', x'02', x'03', 'P-1', 481, 115, 10, 20, null, null);
insert into board values ('LE-2', 'pending', x'ba', x'bb', 0, 'pico', x'01', x'02', x'03', null, null, null, 10, null, null, null);
insert into board values ('LE-3', 'revoked', x'ca', x'cb', 0, 'pico', x'01', x'02', x'03', 'P-3', null, null, 10, 25, 30, 'stolen');
insert into roster values ('gw', 1, 40, zeroblob(32), x'05');
pragma user_version = 1;
