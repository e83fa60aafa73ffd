-- As pollers do it: GET of the same experiment again, with the ETag that came with it.
local path, tag

function init(arguments)
   for id in io.lines(arguments[1]) do
      path = "/v1/experiments/" .. id
      break
   end
end

function request()
   return wrk.format("GET", path, tag and { ["If-None-Match"] = tag } or {})
end

function response(status, headers)
   tag = headers["ETag"] or tag
end
