-- POST of a small experiment; the argument is the spec.
local posted

function init(arguments)
   posted = wrk.format("POST", "/v1/experiments", { ["Content-Type"] = "application/json" }, arguments[1])
end

function request()
   return posted
end
