-- Posts one file over and over: wrk ... -s wrk.lua URL -- FILE CONTENT-TYPE
-- At the end prints one line of figures that bench.py reads.

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()
end

function done(summary, latency)
  local errors = summary.errors
  local figures = {
    { "requests", summary.requests },
    { "duration_us", summary.duration },
    { "p50_us", latency:percentile(50) },
    { "p99_us", latency:percentile(99) },
    { "connect_errors", errors.connect },
    { "read_errors", errors.read },
    { "write_errors", errors.write },
    { "timeouts", errors.timeout },
    { "bad_statuses", errors.status },
  }
  for i, figure in ipairs(figures) do
    figures[i] = string.format("%s=%.0f", figure[1], figure[2])
  end
  print("FIGURES " .. table.concat(figures, " "))
end
